"""The commands of `leadstream`, a module for each thing an operator, investigator or auditor comes for."""

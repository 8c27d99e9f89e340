"""The thin asynchronous shell: the Faust app, its agents and the audit sink; no rule lives here."""

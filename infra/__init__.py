"""Everything an operator touches: settings, wiring, the command line, brokers, ClickHouse DDL, assets."""

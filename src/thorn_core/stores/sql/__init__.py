"""The SQL store: statements, rows and rules for databases, once."""

"""The paper's three experiments, end to end: stages in order, what is done is skipped, tables at the end."""

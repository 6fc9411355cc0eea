"""What a person or a program reads of a run that is recorded: figure, table, sentences."""

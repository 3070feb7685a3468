"""The vocabulary of Postdoc: pure values and functions, standard library only."""

"""What a training run needs of a machine before it runs there: memory, time and price, from the model's configuration,
the recipe and the rows, without loading anything."""

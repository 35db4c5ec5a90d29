"""A linear softmax classifier: loss, optimizers, training, evaluation and the model file."""

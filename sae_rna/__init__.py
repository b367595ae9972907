"""Sparse autoencoders for RNA language models: sequences -> language model -> activations -> SAE -> features -> concepts -> figures."""

__version__ = "0.1.0"

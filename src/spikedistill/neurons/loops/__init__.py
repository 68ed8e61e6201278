"""Loops that take each neuron through all its timesteps: C++ on a CPU, Triton on a GPU, PyTorch elsewhere."""

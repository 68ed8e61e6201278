"""What a training step, a layer of neurons and inference cost, measured side by side: `python -m benchmarks --help`."""

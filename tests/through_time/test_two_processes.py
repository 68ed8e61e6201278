"""Distributed data parallel over two real processes on the CPU."""

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from spikedistill import create_model

RULES = [("bptt", 1), ("sltt", 1), ("rate", 1), ("rate", 2), ("dsr", 1)]


def network(gradient, segments):
    torch.manual_seed(0)
    return create_model(
        "convnet", num_classes=3, in_channels=2, image_size=8, width=0.2, gradient=gradient, segments=segments
    )


def batch(rank):
    return torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(rank))


def work(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    try:
        results = {}
        for gradient, segments in RULES:
            model = DistributedDataParallel(network(gradient, segments))
            for _ in range(2):
                model.zero_grad()
                model(batch(rank), timesteps=4).square().sum().backward()
            results[gradient, segments] = [p.grad for p in model.parameters()]
        torch.save(results, f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


def test_gradients_are_the_same_on_both_ranks_and_the_mean_over_them(tmp_path):
    mp.spawn(work, args=(str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for rule in RULES:
        alone = []
        for rank in (0, 1):
            model = network(*rule)
            for _ in range(2):
                model.zero_grad()
                model(batch(rank), timesteps=4).square().sum().backward()
            alone.append([p.grad for p in model.parameters()])
        for a, b, mine, yours in zip(first[rule], second[rule], *alone, strict=True):
            assert torch.equal(a, b)
            torch.testing.assert_close(a, (mine + yours) / 2, rtol=1e-4, atol=1e-6)
        assert any(g.norm() > 1e-3 for g in first[rule])

"""How Lightning trains in several processes, also after torchrun has restarted them."""

import itertools
import os
import sys
from datetime import timedelta

from lightning.pytorch.strategies import DDPStrategy, Strategy
from torch import distributed

from ..config import TrainerConfig
from .processes import shares_store_of_torchrun

CONNECTING = 30.0  # seconds for each address of a host; torchrun opens its store before it starts the processes
_groups = itertools.count()


def make_strategy(options: TrainerConfig) -> Strategy | str:
    """Lightning's choice for one device, and `Restartable` for several."""
    if options.devices * options.nodes == 1:
        return "auto"
    # as Lightning does: a notebook has no command line with which to start further processes
    interactive = hasattr(sys, "ps1") and options.nodes == 1
    return Restartable(
        timeout=timedelta(seconds=options.timeout_seconds), start_method="fork" if interactive else "popen"
    )


class Restartable(DDPStrategy):
    """DDP whose processes find each other again after a restart.

    Processes publish their addresses in a store. PyTorch expects a new store after every restart, but torchrun keeps one: a process
    that reads the address of a killed one there connects to nobody until the timeout. So every group has keys of its own, named by
    the restart and by how many groups the process has opened before.
    """

    def setup_distributed(self) -> None:
        if shares_store_of_torchrun() and not distributed.is_initialized():
            environment = self.cluster_environment
            assert environment is not None
            assert self._timeout is not None
            connecting = min(self._timeout, timedelta(seconds=CONNECTING))
            store = distributed.TCPStore(
                environment.main_address, environment.main_port, is_master=False, timeout=connecting
            )
            store.set_timeout(self._timeout)
            group = f"restart {os.environ['TORCHELASTIC_RESTART_COUNT']}, group {next(_groups)}"
            distributed.init_process_group(
                self._get_process_group_backend(),
                store=distributed.PrefixStore(group, store),
                rank=environment.global_rank(),
                world_size=environment.world_size(),
                timeout=self._timeout,
                device_id=self.root_device if self.root_device.type != "cpu" else None,
            )
        super().setup_distributed()

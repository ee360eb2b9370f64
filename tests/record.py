"""Runs a script and writes down what it computed, for tests that compare it with an independent reference.

    python record.py SCRIPT FILE

FILE then holds, written by `torch.save`, the `events` of the run in their order, and its `variables`: those at its end that
are numbers, texts, collections of them, arrays, tensors or tables; data sets become lists of rows. An event is a dict with its `kind`:

batch    what a DataLoader drew: `size` of its dataset, `indices` of the rows, and the collated `batch`
forward  a call of a model by nobody inside another model: `model`, the name of its class; whether it was `training`, and whether
         gradients were recorded (`grad`); its `inputs`, and with gradients the tensors of its `outputs`
step     a step of an `optimizer`, by the name of its class: its learning rate and weight decay for each group, in `groups`
"""

import pickle
import runpy
import sys

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.data import _utils

PLAIN = (Dataset, int, float, str, list, tuple, dict, set, np.ndarray, np.generic, torch.Tensor, pd.DataFrame, pd.Series)
events, depth = [], 0


def copied(value):
    """Tensors in dicts as copies that later changes don't reach."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    return {key: copied(each) for key, each in value.items() if isinstance(each, (torch.Tensor, dict))} if hasattr(value, "items") else None


fetch = _utils.fetch._MapDatasetFetcher.fetch


def watch_batches(self, indices):
    batch = fetch(self, indices)
    events.append({"kind": "batch", "size": len(self.dataset), "indices": list(indices), "batch": copied(batch)})
    return batch


def enter(module, arguments):
    global depth
    depth += 1


def leave(module, arguments, named, outputs):
    global depth
    depth -= 1
    if depth == 0:
        grad = torch.is_grad_enabled()
        inputs = copied(named) | {i: copied(value) for i, value in enumerate(arguments)}
        event = {"kind": "forward", "model": type(module).__name__, "training": module.training, "grad": grad, "inputs": inputs}
        events.append(event | ({"outputs": copied(outputs)} if grad else {}))


def watch_steps(optimizer, *_):
    groups = [(group["lr"], group.get("weight_decay")) for group in optimizer.param_groups]
    events.append({"kind": "step", "optimizer": type(optimizer).__name__, "groups": groups})


def plain(value):
    """Data sets, also in dicts, as lists of rows."""
    if isinstance(value, Dataset):
        return value.to_list()
    return {key: plain(each) for key, each in value.items()} if isinstance(value, dict) else value


def picklable(value):
    try:
        pickle.dumps(value)
        return True
    except Exception:
        return False


if __name__ == "__main__":
    script, file = sys.argv[1:]
    _utils.fetch._MapDatasetFetcher.fetch = watch_batches
    register_module_forward_pre_hook(enter)
    register_module_forward_hook(leave, with_kwargs=True, always_call=True)
    register_optimizer_step_post_hook(watch_steps)
    sys.argv = [script]
    found = runpy.run_path(script, run_name="__main__")
    variables = {name: plain(value) for name, value in found.items() if name[0] != "_" and isinstance(value, PLAIN)}
    variables = {name: value for name, value in variables.items() if picklable(value)}
    torch.save({"events": events, "variables": variables}, file)

"""Muon and AdamW as one optimizer: the first for the weight matrices inside a decoder, the second for all else."""

import torch
from transformers import PreTrainedModel


class MuonAdamW(torch.optim.Optimizer):
    """[Muon](https://kellerjordan.github.io/posts/muon/) for the weight matrices of the layers, and AdamW for the embeddings, the
    output layer, and everything that isn't a matrix.

    Muon replaces the (averaged) gradient of a matrix by the nearest matrix whose directions all have the same length, so that a
    step doesn't go to the few directions with the largest gradients alone. Its steps are scaled to the size of those of AdamW
    (Liu et al., 2025, https://arxiv.org/abs/2502.16982), so one learning rate suits both.

    To a schedule, a checkpoint or `Trainer` it is one optimizer, with the parameter groups and the states of both.
    """

    def __init__(self, model: PreTrainedModel, lr: float, weight_decay: float = 0.01):
        ends = [part for part in (model.get_input_embeddings(), model.get_output_embeddings()) if part is not None]
        at_the_ends = {id(parameter) for part in ends for parameter in part.parameters()}
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        inside = [parameter for parameter in trained if parameter.dim() == 2 and id(parameter) not in at_the_ends]
        inside_ids = {id(parameter) for parameter in inside}
        others = [parameter for parameter in trained if id(parameter) not in inside_ids]
        matrices, vectors = [[p for p in others if (p.dim() >= 2) == is_matrix] for is_matrix in (True, False)]
        self.parts = [
            torch.optim.Muon(inside, lr=lr, weight_decay=weight_decay, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(
                [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}],
                lr=lr, betas=(0.9, 0.99), fused=True),
        ]
        super().__init__([group for part in self.parts for group in part.param_groups], {})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        """A step of both, with the learning rates that the groups have now."""
        for part, groups in zip(self.parts, (self.param_groups[:1], self.param_groups[1:])):
            part.param_groups, part.state = groups, self.state  # after loading a checkpoint, both are new
            part.step()

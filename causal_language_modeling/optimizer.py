"""Muon and AdamW as one optimizer: the first for the weight matrices inside a decoder, the second for all else."""

import torch
from transformers import PreTrainedModel


class Muon(torch.optim.Optimizer):
    """[Muon](https://kellerjordan.github.io/posts/muon/) for matrices, computed in float32.

    `torch.optim.Muon` is the same but for bfloat16, in which the last bits of a gradient decide about more than last bits of a step:
    two processes would not give the losses of one.
    """

    def __init__(self, params: list[torch.Tensor], lr: float, weight_decay: float, momentum: float = 0.95):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        """A step of every matrix that has a gradient, scaled to the size of a step of AdamW."""
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(matrix)
                state["momentum_buffer"].lerp_(matrix.grad, 1 - group["momentum"])
                direction = orthogonal(matrix.grad.lerp(state["momentum_buffer"], group["momentum"]))
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(direction, alpha=-0.2 * max(matrix.shape) ** 0.5 * group["lr"])


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """The nearest matrix, in its directions, whose singular values are all near 1 (0.7 to 1.2), by five Newton-Schulz steps.

    Args:
        matrix: (rows, columns), float32.
    """
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if is_tall else matrix
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if is_tall else x


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
            Muon(inside, lr, weight_decay),
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

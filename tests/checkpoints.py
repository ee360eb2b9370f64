"""What a run leaves on disk: its stages, their checkpoints and weights."""

from parameters import LEARNABLE, STAGES
from safetensors.torch import load_file


def step_of(checkpoint):
    return int(checkpoint.name.split("-")[-1])


def newest(folder):
    return max(folder.glob("checkpoint-*"), key=step_of)


def stages(folder, run):
    """[folder of checkpoints, its epochs, its steps] of the stages of a finished run; most tasks have one, the run itself."""
    names = STAGES.get(folder, {".": "num_epochs"})
    return [[run / name, LEARNABLE[folder][epochs], step_of(newest(run / name))] for name, epochs in names.items()]


def tensors(folder):
    """The weights in a folder; those of an encoder within another module by the names they have without it."""
    return {name.removeprefix("encoder."): tensor for name, tensor in load_file(folder / "model.safetensors").items()}


def last_weights(folder, run):
    """The bytes of the weights in the last checkpoint of a run, and of the model it settled on."""
    last = newest(stages(folder, run)[-1][0])
    return (last / "model.safetensors").read_bytes(), (run / "model" / "model.safetensors").read_bytes()


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}

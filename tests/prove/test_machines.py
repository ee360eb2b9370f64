"""What the page on several machines says: a configuration that Accelerate reads and writes, and two launchers that meet."""

import re
import subprocess
import sys

import notebooks
import pytest
from accelerate.commands.config.config_args import load_config_from_file
from parameters import LEARNABLE, NO_DROPOUT
from scripts import export, job, outcomes

PAGE = (notebooks.ROOT / ".github" / "machines.md").read_text()
CONFIGS = dict(re.findall(r"<summary>(\w+)\.yaml</summary>\n\n```yaml\n(.*?)```", PAGE, flags=re.S))
FOLDER, NAME = "sequence_classification", "accelerate_loop"


@pytest.mark.parametrize("name", ["fsdp"])
def test_the_configuration_is_as_accelerate_writes_it(name, tmp_path):
    (tmp_path / "config.yaml").write_text(CONFIGS[name])
    config = load_config_from_file(str(tmp_path / "config.yaml"))
    config.to_yaml_file(str(tmp_path / "again.yaml"))
    assert (tmp_path / "again.yaml").read_text() == CONFIGS[name]
    assert config.distributed_type.lower() == name and (config.num_machines, config.num_processes) == (2, 16)


def test_two_launchers_that_meet_are_the_same_experiment(scripts, tmp_path):
    parameters = LEARNABLE[FOLDER] | NO_DROPOUT[FOLDER] | {"gradient_accumulation_steps": 2}
    statuses = scripts.run(job(tmp_path / "one", export(FOLDER, NAME, tmp_path / "one", parameters)))
    assert statuses == [0], (tmp_path / "one" / "log").read_text()[-3000:]
    (alone,) = outcomes(tmp_path / "one", NAME)

    line = re.search(r"^torchrun --nnodes 2 (.*) two\.py$", PAGE, flags=re.M)[1]
    line = line.replace("--nproc_per_node 8", "--nproc_per_node 1").replace("10.0.0.1:29500", "127.0.0.1:29641")
    script = export(FOLDER, NAME, tmp_path / "run", parameters | {"batch_size": parameters["batch_size"] // 2})
    launch = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", *line.split(), script]
    both = [subprocess.Popen(launch, cwd=tmp_path / "run", stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    found = outcomes(tmp_path / "run", NAME)
    assert len(found) == 2, "each process writes what it got"
    for outcome in found:
        assert notebooks.largest_difference(outcome["losses"], alone["losses"]) < 1e-5

"""What the README says of several machines: configurations that Accelerate reads and writes, and two launchers that meet."""

import json
import re
import subprocess
import sys

import notebooks
import pytest
from accelerate.commands.config.config_args import load_config_from_file
from stand_ins import NO_DROPOUT, PARAMETERS
from test_proofs import run_script

README = (notebooks.ROOT / "README.md").read_text()
CONFIGS = dict(re.findall(r"<summary>(\w+)\.yaml</summary>\n\n```yaml\n(.*?)```", README, flags=re.S))
FOLDER, NAME = "sequence_classification", "accelerate_loop"
PARAMETERS = PARAMETERS[FOLDER] | NO_DROPOUT[FOLDER] | {"gradient_accumulation_steps": 2}


@pytest.fixture(scope="module")
def alone(hub, tmp_path_factory):
    """What one process gives."""
    done, (outcome,) = run_script(FOLDER, NAME, tmp_path_factory.mktemp("one") / "run", PARAMETERS)
    assert done.returncode == 0, done.stderr[-4000:]
    return outcome


def exported(target):
    notebooks.copy_folder(FOLDER, target)
    halved = PARAMETERS | {"batch_size": PARAMETERS["batch_size"] // 2}
    return notebooks.script(notebooks.ROOT / FOLDER / f"{NAME}.ipynb", target, halved, f"{NAME}.json").name


def losses_of_two(target):
    files = sorted(target.glob(f"{NAME}*.json"))
    assert len(files) == 2, "each process writes what it got"
    return [json.loads(file.read_text())["losses"] for file in files]


@pytest.mark.parametrize("name", ["fsdp", "deepspeed"])
def test_the_configuration_is_as_accelerate_writes_it(name, tmp_path):
    (tmp_path / "config.yaml").write_text(CONFIGS[name])
    config = load_config_from_file(str(tmp_path / "config.yaml"))
    config.to_yaml_file(str(tmp_path / "again.yaml"))
    assert (tmp_path / "again.yaml").read_text() == CONFIGS[name]
    assert config.distributed_type.lower() == name and (config.num_machines, config.num_processes) == (2, 16)


def test_on_a_cpu_the_configuration_for_fsdp_trains_without_it(alone, tmp_path):
    script = exported(tmp_path / "run")
    config = re.sub("num_machines: 2", "num_machines: 1", re.sub("num_processes: 16", "num_processes: 2", CONFIGS["fsdp"]))
    config = re.sub("main_process_ip: .*", "main_process_ip: 127.0.0.1", re.sub("29500", "0", config))
    (tmp_path / "config.yaml").write_text(config)
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(tmp_path / "config.yaml"), script]
    done = subprocess.run(launch, cwd=tmp_path / "run", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    for losses in losses_of_two(tmp_path / "run"):
        assert losses == pytest.approx(alone["losses"], abs=1e-5)


def test_two_launchers_that_meet_are_the_same_experiment(alone, tmp_path):
    line = re.search(r"^torchrun --nnodes 2 (.*) two\.py$", README, flags=re.M)[1]
    line = line.replace("--nproc_per_node 8", "--nproc_per_node 1").replace("10.0.0.1:29500", "127.0.0.1:29641")
    script = exported(tmp_path / "run")
    launch = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", *line.split(), script]
    both = [subprocess.Popen(launch, cwd=tmp_path / "run", stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    for losses in losses_of_two(tmp_path / "run"):
        assert losses == pytest.approx(alone["losses"], abs=1e-5)

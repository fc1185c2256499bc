"""A model in an image of its own, mounted into an image without one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import yaml  # type: ignore[import-untyped]  # PyYAML ships no types
from tests.container.builds import ROOT, build
from tests.container.engines import HARDENED, Docker, Engine, Options, Result, call, exported_root
from tests.container.http import get_text
from tests.container.test_bad_input import the_error
from tests.container.test_rebuild import layers
from tests.container.test_same_answer import answer

from distilgpt2_api.core.exit_status import EXIT_MODEL

EMPTY_IMAGE = "distilgpt2-api-test:no-model"
CHANGED_IMAGE = "distilgpt2-api-test:model-after-a-change"


def test_a_mounted_model_answers_as_a_built_in_one(
    engine: Engine, image: str, without_model: str, model_image: str
) -> None:
    """The same text and log-probabilities for one seed, under the same name."""
    engine.load(without_model)
    answers = []
    with engine.with_model(model_image) as mounted:
        for name, options in ((image, Options()), (without_model, mounted)):
            with engine.running(name, options) as service:
                service.wait_until_ready()
                answers.append((answer(service.port), get_text(service.port, "/v1/models")))
    (built_in, its_models), (split, other_models) = answers
    assert split == built_in
    assert [model["id"] for model in json.loads(other_models)["data"]] == ["storyteller"]
    assert json.loads(its_models)["data"][0]["id"] == "storyteller"


def test_kserve_s_container_serves_the_model_where_kserve_mounts_it(
    docker: Docker, without_model: str, model_image: str
) -> None:
    """With the manifest's variables: KServe mounts the image's folder /models, and fills in the service's name."""
    (container,) = yaml.safe_load((ROOT / "deploy" / "kserve" / "serving-runtime.yaml").read_text())["spec"][
        "containers"
    ]
    environment = {entry["name"]: entry["value"].replace("{{.Name}}", "fairy-tales") for entry in container["env"]}
    with docker.with_model(model_image) as mounted:
        (mount,) = mounted.mounts
        options = Options(
            flags=(*HARDENED, "--user=10001:0", mount.replace("/opt/models", "/mnt/models")), environment=environment
        )
        with docker.running(without_model, options) as service:
            service.wait_until_ready()
            assert [model["id"] for model in json.loads(get_text(service.port, "/v1/models"))["data"]] == [
                "fairy-tales"
            ]


def test_a_model_that_is_not_mounted_is_a_one_line_error(engine: Engine, without_model: str) -> None:
    engine.load(without_model)
    _assert_asks_for_a_model(engine.run(without_model))


def test_a_model_image_without_a_model_is_a_one_line_error(engine: Engine, without_model: str, context: Path) -> None:
    result = build(context, EMPTY_IMAGE, "--target=model-image", MODEL="none")
    assert result.exit_status == 0, result.output
    engine.load(without_model)
    with engine.with_model(EMPTY_IMAGE) as mounted:
        _assert_asks_for_a_model(engine.run(without_model, options=mounted))


def _assert_asks_for_a_model(result: Result) -> None:
    assert "is empty: is the volume or image with the model mounted there?" in the_error(result)
    assert result.returncode == EXIT_MODEL


def test_a_model_image_has_only_the_model(docker: Docker, model_image: str, tmp_path: Path) -> None:
    """Any user may read it, and its licence and model card are in it."""
    with exported_root(model_image, tmp_path) as archive:
        members = {member.name: member for member in archive if member.name.startswith("model")}
    assert (members["model"].linkname, members["models/model"].linkname) == ("models/model", "storyteller")
    files = {name.removeprefix("models/storyteller/") for name, member in members.items() if member.isfile()}
    assert files == {"README.md", "config.json", "tokenizer.json", "compiled.int8.safetensors"}
    assert all(member.mode & 0o044 == 0o044 for member in members.values())
    assert len(layers(model_image)) == 1


def test_a_model_called_like_the_link_is_its_own_link(docker: Docker, context: Path, tmp_path: Path) -> None:
    """`models/model` is then the model itself."""
    changed = tmp_path / "changed"
    shutil.copytree(context, changed)
    shutil.copytree(changed / "src" / "distilgpt2_api" / "models" / "storyteller", changed / "model")
    result = build(changed, CHANGED_IMAGE, MODEL="./model")
    assert result.exit_status == 0, result.output
    with docker.running(CHANGED_IMAGE) as service:
        service.wait_until_ready()
        assert [model["id"] for model in json.loads(get_text(service.port, "/v1/models"))["data"]] == ["model"]


def test_its_labels_say_what_it_is(docker: Docker, model_image: str) -> None:
    labels = json.loads(call(["docker", "image", "inspect", model_image]).stdout)[0]["Config"]["Labels"]
    assert labels["distilgpt2-api.model"] == "src/distilgpt2_api/models/storyteller"
    assert labels["distilgpt2-api.precision"] == "int8"
    assert labels["org.opencontainers.image.licenses"] == "MIT"
    assert labels["org.opencontainers.image.title"] == "model for distilgpt2-api"


def test_a_change_of_code_changes_no_model_and_a_change_of_model_no_code(
    image: str, without_model: str, model_image: str, context: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(context, changed)
    module = changed / "src" / "distilgpt2_api" / "api.py"
    module.write_text(module.read_text() + "\n# another line\n")
    result = build(changed, CHANGED_IMAGE, "--target=model-image", MODEL_LICENSE="MIT")
    assert result.exit_status == 0, result.output
    assert result.is_cached("docker/prepare_model.py --model")
    assert layers(CHANGED_IMAGE) == layers(model_image)

    base, dependencies, _, code = layers(image)
    assert [base, dependencies, code] == [*layers(without_model)[:2], layers(without_model)[-1]]


def test_a_folder_of_that_name_is_a_folder(docker: Docker, context: Path) -> None:
    result = build(context, EMPTY_IMAGE, "--target=model-image", MODEL="./none")
    assert result.exit_status != 0
    assert "error: --build-arg MODEL=./none: no such folder in the build context" in result.output

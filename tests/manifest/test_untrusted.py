"""A manifest of a stranger is checked and planned without giving anything of this machine away."""

from dataclasses import replace

import pytest

from pipeline.errors import InputError
from pipeline.manifest import sandbox
from pipeline.manifest.expand import Expansion
from pipeline.manifest.inputs import read_digest
from pipeline.manifest.loader import looks_secret
from tests.provider.conftest import png

KEY = "sk-0123456789abcdef"
SECRET_FILE = f"COMETAPI_KEY={KEY}\n"
TABLE = "jobs: {{a: {{each: {{csv: {path}, key: x}}, prompt: p}}}}\n"
PROMPT = "jobs: {{a: {{prompt_file: {path}}}}}\n"
IMAGE = "jobs: {{a: {{prompt: p, images: [{path}]}}}}\n"
PROFILE = "provider: {{kind: simulator, profile: ./{path}}}\njobs: {{a: {{prompt: p}}}}\n"


@pytest.mark.parametrize("text", [TABLE, PROMPT, IMAGE, PROFILE], ids=["table", "prompt", "image", "profile"])
@pytest.mark.parametrize(
    "path", [".env", ".env.local", "sub/.envrc", "link.csv", "folder/credentials", "/proc/self/environ", ".netrc"]
)
def test_files_of_secrets_are_refused_by_name_and_through_links(desk, text, path):
    for name in (".env", ".env.local", "sub/.envrc", ".aws/credentials", ".netrc"):
        desk.write(name, SECRET_FILE)
    (desk.folder / "link.csv").symlink_to(".env")
    (desk.folder / "folder").symlink_to(".aws")
    problems = desk.problems(text.format(path=path).replace(".//proc", "/proc"))
    assert len(problems) == 1, problems
    assert "it may hold secrets" in str(problems[0])
    assert KEY not in str(problems[0])


def test_folders_of_the_system_are_refused(desk):
    (desk.folder / "p").symlink_to("/proc/self")
    for pattern in ("/proc/self/*", "p/*", "/dev/*"):
        (problem,) = desk.problems(f"jobs: {{a: {{prompt: p, each: {{files: '{pattern}'}}}}}}\n")
        assert "the folder is refused: it may hold secrets" in problem.what


TOOLS = """
    .git/config .config/gh/hosts.yml .vault-token .cargo/credentials.toml keys/id_ed25519 server.pem tls.KEY
    .bash_history .config/gcloud/application_default_credentials.json .terraform.d/credentials.tfrc.json
"""


@pytest.mark.parametrize("path", TOOLS.split())
def test_files_where_tools_keep_secrets_are_refused(desk, path):
    desk.write(path, SECRET_FILE)
    desk.write("plain.csv").unlink()
    (desk.folder / "plain.csv").symlink_to(path)
    for written in (path, "plain.csv"):
        (problem,) = desk.problems(TABLE.format(path=written))
        assert "it may hold secrets" in str(problem)
        assert KEY not in str(problem)


@pytest.mark.parametrize("path", ["keys.csv", "monkey.csv", "credentials-guide.csv", "my.key.csv", "gitter/x.csv"])
def test_files_of_like_names_are_read(desk, path):
    desk.write(path, "x\n1\n")
    assert len(desk.tasks(TABLE.format(path=path))) == 1


BUSY = "{% for i in range(900) %}{{ i if false }}{% endfor %}"


def test_templates_of_many_tasks_share_one_budget(desk, monkeypatch):
    """One rendering is cheap enough; ten thousand took three hours."""
    monkeypatch.setattr(sandbox, "MAX_TOGETHER", 100_000)
    monkeypatch.setattr(sandbox, "WORK_EACH", 100)
    values = ", ".join(f"v{number}" for number in range(400))
    manifest = desk.load(f"jobs: {{a: {{matrix: {{m: [{values}]}}, prompt: '{{{{ matrix.m }}}}{BUSY}'}}}}\n")
    with pytest.raises(InputError, match="the templates of all tasks together do too much work"):
        [*Expansion(manifest, digests=read_digest)]


def test_all_templates_of_a_manifest_are_bounded_too(desk, monkeypatch):
    monkeypatch.setattr(sandbox, "MAX_PARTS", 1000)
    items = ", ".join(f"i{number}: '{{{{ 1{' + 1' * 50} }}}}'" for number in range(20))
    problems = desk.problems(f"jobs: {{a: {{items: {{{items}}}}}}}\n")
    assert 5 < len(problems) < 20
    assert {problem.what.partition(" have more than ")[0] for problem in problems} == {"the templates of this manifest"}


def test_each_expansion_has_a_budget_of_its_own(desk, monkeypatch):
    monkeypatch.setattr(sandbox, "MAX_TOGETHER", 100_000)
    monkeypatch.setattr(sandbox, "WORK_EACH", 100)
    manifest = desk.load(f"jobs: {{a: {{items: {{x: 'p{BUSY}', y: 'p{BUSY}'}}}}}}\n")
    assert [len([*Expansion(manifest, digests=read_digest)]) for _ in range(20)] == [2] * 20


def test_ordinary_hidden_files_are_read(desk):
    desk.write(".prompts/.first.txt", "A mug")
    assert [task.prompt for task in desk.tasks("jobs: {a: {prompt_file: .prompts/.first.txt}}\n")] == ["A mug"]


SECRETS = """
    AWS_SECRET_ACCESS_KEY AWS_PROFILE GITHUB_TOKEN GH_HOST SSH_AUTH_SOCK DB_PASSWORD PGPASSWORD APIKEY my_token
    GOOGLE_APPLICATION_CREDENTIALS BASIC_AUTH AUTHORIZATION PRIVATE_URL SESSION_COOKIE SENTRY_DSN DATABASE_URL
    HTTPS_PROXY SLACK_WEBHOOK_URL PIP_INDEX_URL MYSQL_PWD DB_CREDS
"""
HARMLESS = "SEASON HOME USER LANG AUTHOR KEYWORDS PAPER BRAND PWD HOSTNAME SHOP_URL TZ"


@pytest.mark.parametrize("name", SECRETS.split())
def test_variables_that_look_like_secrets_are_refused_unless_allowed(desk, name):
    text = f"vars: {{x: '${{{name}:-none}}'}}\njobs: {{a: {{prompt: '{{{{ vars.x }}}}'}}}}\n"
    (problem,) = desk.problems(text, environ={name: "hunter2hunter2"})
    assert f"{name} looks like a secret" in problem.what
    assert f"--allow-env {name}" in problem.instead
    assert "hunter2" not in str(problem)
    manifest = desk.load(text, environ={name: "hunter2"}, allow_env=[name])
    assert manifest.variables == {"x": "hunter2"}


def test_variables_of_everyday_names_are_not_secrets():
    assert [name for name in HARMLESS.split() if looks_secret(name)] == []


def test_the_key_itself_is_refused_even_if_allowed(desk):
    text = "vars: {x: '${COMETAPI_KEY}'}\njobs: {a: {prompt: '{{ vars.x }}'}}\n"
    (problem,) = desk.problems(text, environ={"COMETAPI_KEY": KEY}, allow_env=["COMETAPI_KEY"])
    assert "COMETAPI_KEY is the API key" in problem.what


HOLDING_THE_KEY = {
    "prompt": "{prompt: 'x {{ row.v }} y'}",
    "system": "{prompt: p, system: '{{ row.v }}'}",
    "model": "{prompt: p, model: '{{ row.v }}'}",
    "params": f"{{prompt: p, params: {{a: [{{b: 'x{KEY}'}}]}}}}",
    "safety": f"{{prompt: p, safety: {{A: {KEY}}}}}",
    "output": "{prompt: p, output: 'a/{{ row.v }}'}",
    "id": "{prompt: p, id: '{{ row.v }}'}",
}


@pytest.mark.parametrize("keys", HOLDING_THE_KEY.values(), ids=HOLDING_THE_KEY)
def test_a_request_or_name_that_holds_the_key_is_refused(desk, keys):
    desk.write("t.csv", f"id,v\n1,{KEY}\n")
    manifest = replace(desk.load(f"jobs: {{a: {{each: {{csv: t.csv}}, {keys[1:]}}}\n"), secrets=(KEY,))
    with pytest.raises(InputError) as error:
        [*Expansion(manifest, digests=read_digest)]
    assert "holds an API key of this machine" in str(error.value)
    assert KEY not in str(error.value)
    assert KEY not in repr(manifest).partition("jobs=")[0]


@pytest.mark.parametrize(
    "name", ["AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "GH_TOKEN", "SSH_KEY", "HOME", "DB_PASSWORD"]
)
def test_api_key_env_names_a_key_of_a_provider(desk, name):
    (problem,) = desk.problems(f"provider: {{api_key_env: {name}}}\njobs: {{a: {{prompt: p}}}}\n")
    assert "must be a name that ends with _KEY or _TOKEN" in problem.what


def test_long_names_are_not_searched_for_the_nearest(desk):
    header = ",".join(["id", *(f"{'ab' * 20_000}{n}" for n in range(3))])
    desk.write("t.csv", f"{header}\n1,,,\n")
    text = f"jobs: {{a: {{each: {{csv: t.csv}}, prompt: '{{{{ row[\"{'ba' * 20_000}\"] }}}}'}}}}\n"
    (problem,) = desk.problems(text)  # hours, if the texts were compared
    assert "it has: id" in str(problem)


def test_long_matrix_values_are_not_compared(desk):
    one, other = "ab" * 50_000, "ba" * 50_000
    (problem,) = desk.problems(f"jobs: {{a: {{prompt: p, matrix: {{m: [{one}, x], exclude: [{{m: {other}}}]}}}}}}\n")
    assert "excludes nothing" in problem.what


def test_place_of_a_word_that_is_written_otherwise_is_found_at_once(desk):
    text = 'jobs: {a: {prompt: "' + "{{ job }}" * 9_000 + '{{ \\x73elf }}"}}\n'
    (problem,) = desk.problems(text)  # minutes, if the search began anew at every brace
    assert "unknown name 'self'" in problem.what


def test_rehearsal_ignores_the_written_address_and_key(desk):
    provider = "provider: {kind: simulator, base_url: 'http://127.0.0.1:22', api_key_env: OTHER_KEY}\n"
    manifest = desk.load(f"{provider}jobs: {{a: {{prompt: p}}}}\n", simulate=True)
    assert (manifest.provider.base_url, manifest.provider.api_key_env) == (None, None)


def test_images_through_a_link_out_of_the_folder_still_work(desk, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("photos")
    (elsewhere / "a.png").write_bytes(png())
    (desk.folder / "photos").symlink_to(elsewhere)
    (task,) = desk.tasks("jobs: {a: {prompt: p, images: [photos/a.png]}}\n")
    assert len(task.images) == 1

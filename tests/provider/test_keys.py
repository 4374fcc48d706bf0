"""The key: found, never shown."""

import pytest

from pipeline.errors import InputError
from pipeline.provider.credentials import find_key, headers, key_doubt, known_keys
from pipeline.settings import Kind, ProviderSettings


def found(tmp_path, environ, kind=Kind.COMETAPI, name=None):
    return find_key(ProviderSettings(kind=kind, api_key_env=name), environ=environ, dotenv_dir=tmp_path)


@pytest.mark.parametrize(
    ("kind", "name", "environ", "key"),
    [
        (Kind.COMETAPI, None, {"COMETAPI_KEY": "sk-1"}, "sk-1"),
        (Kind.COMETAPI, None, {"COMETAPI_KEY": "\ufeff sk-1\r\n"}, "sk-1"),
        (Kind.COMETAPI, None, {"COMETAPI_KEY": "Bearer sk-1"}, "Bearer sk-1"),
        (Kind.COMETAPI, None, {"COMETAPI_KEY": "Bearer  sk-1"}, "Bearer  sk-1"),
        (Kind.COMETAPI, None, {"COMETAPI_KEY": '"sk-1"'}, "sk-1"),
        (Kind.COMETAPI, None, {"COMETAPI_KEY": " ' sk-1 '\n"}, "sk-1"),
        (Kind.COMETAPI, None, {"COMETAPI_KEY": "\u201csk-1\u201d"}, "sk-1"),
        (Kind.COMETAPI, None, {"COMETAPI_KEY": "'\"Bearer sk-1\"'"}, "Bearer sk-1"),
        (Kind.GOOGLE, None, {"GOOGLE_API_KEY": "g", "GEMINI_API_KEY": '""'}, "g"),
        (Kind.COMETAPI, None, {"COMETAPI_KEY": " 'Bearer sk-1 '\n"}, "Bearer sk-1"),
        (Kind.COMETAPI, "MY_KEY", {"MY_KEY": "sk-2", "COMETAPI_KEY": "sk-1"}, "sk-2"),
        (Kind.GOOGLE, None, {"GOOGLE_API_KEY": "g"}, "g"),
        (Kind.GOOGLE, None, {"GOOGLE_API_KEY": "g", "GEMINI_API_KEY": "m"}, "m"),
        (Kind.GOOGLE, None, {"GOOGLE_API_KEY": "g", "GEMINI_API_KEY": " "}, "g"),
        (Kind.SIMULATOR, None, {"COMETAPI_KEY": "sk-1"}, "simulator"),
        (Kind.SIMULATOR, "MY_KEY", {"MY_KEY": "sk-3"}, "sk-3"),
        (Kind.SIMULATOR, "MY_KEY", {}, "simulator"),
    ],
)
def test_find_key_looks_where_it_should(tmp_path, kind, name, environ, key):
    assert found(tmp_path, environ, kind, name) == key


@pytest.mark.parametrize(
    ("kind", "name", "names"),
    [
        (Kind.COMETAPI, None, ["COMETAPI_KEY"]),
        (Kind.GOOGLE, None, ["GEMINI_API_KEY", "GOOGLE_API_KEY"]),
        (Kind.COMETAPI, "MY_KEY", ["MY_KEY"]),
    ],
)
def test_a_missing_key_names_its_variables(tmp_path, kind, name, names):
    with pytest.raises(InputError) as caught:
        found(tmp_path, {"COMETAPI_KEY": "", "MY_KEY": "  "}, kind, name)
    assert all(name in str(caught.value) for name in names)


@pytest.mark.parametrize("text", ["COMETAPI_KEY=sk-9\n", "\ufeffexport COMETAPI_KEY='sk-9'\n", 'COMETAPI_KEY="sk-9"'])
def test_a_dotenv_beside_the_manifest_is_read(tmp_path, text):
    (tmp_path / ".env").write_text(text, encoding="utf-8")
    assert found(tmp_path, {}) == "sk-9"


def test_a_dotenv_is_taken_literally_and_comes_second(tmp_path):
    (tmp_path / ".env").write_text("COMETAPI_KEY=sk-${HOME}\n")
    assert found(tmp_path, {}) == "sk-${HOME}"
    assert found(tmp_path, {"COMETAPI_KEY": "sk-1"}) == "sk-1"


@pytest.mark.parametrize("data", [b"COMETAPI_KEY=\xff\xfe\n", "COMETAPI_KEY=sk-1\n".encode("utf-16")])
def test_a_dotenv_in_another_encoding_says_so(tmp_path, data):
    (tmp_path / ".env").write_bytes(data)
    with pytest.raises(InputError, match=r"\.env is not UTF-8 text; save it as UTF-8"):
        found(tmp_path, {})


@pytest.mark.parametrize(
    "key",
    [
        *("sk-1\nX-Evil: 1", "sk-ключ", "sk-\x00", '"sk-1', 'sk-1"', "Bearer 'sk-1'"),
        *(
            "sk-1 # of docker's env file",
            "export COMETAPI_KEY=sk-1",
            "Authorization: Bearer sk-1",
            "Bearer Bearer sk-1",
        ),
    ],
)
def test_s01_a_key_no_header_can_carry_is_refused_without_showing_it(tmp_path, key):
    with pytest.raises(InputError) as caught:
        found(tmp_path, {"COMETAPI_KEY": key})
    assert "sk-" not in str(caught.value)
    assert "COMETAPI_KEY" in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "name"),
    [(Kind.COMETAPI, "Authorization"), (Kind.GOOGLE, "x-goog-api-key"), (Kind.SIMULATOR, "Authorization")],
)
def test_headers_carry_the_key_as_it_is(kind, name):
    assert headers(ProviderSettings(kind=kind), "Bearer sk-1") == {name: "Bearer sk-1"}


def test_dotenv_that_is_a_link_to_another_secret_is_refused(tmp_path):
    (tmp_path / "credentials").write_text("COMETAPI_KEY=sk-of-somebody-else\n")
    (tmp_path / ".env").symlink_to("credentials")
    with pytest.raises(InputError, match="is a link to a file of another name") as error:
        found(tmp_path, {})
    assert "sk-of" not in str(error.value)
    (tmp_path / ".env").unlink()
    (tmp_path / "credentials").rename(tmp_path / ".env.shop")
    (tmp_path / ".env").symlink_to(".env.shop")
    assert found(tmp_path, {}) == "sk-of-somebody-else"


@pytest.mark.parametrize(
    ("text", "advice"),
    [(None, "a file .env beside the manifest ({}/.env)"), ("sk-1\nAPI_KEY=sk-2\n", "/.env, which has no such line")],
    ids=["no-file", "no-line"],
)
def test_a_missing_key_says_where_to_write_it(tmp_path, text, advice):
    if text is not None:
        (tmp_path / ".env").write_text(text)
    with pytest.raises(InputError, match="COMETAPI_KEY is not set; export it") as error:
        found(tmp_path, {})
    assert "write the line COMETAPI_KEY=YOUR-KEY to " in str(error.value)
    assert str(error.value).endswith(advice.format(tmp_path))
    assert "sk-" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "environ", "told"),
    [
        (
            Kind.COMETAPI,
            {"COMETAPI_KEY": "sk-old"},
            "COMETAPI_KEY in the environment is used, COMETAPI_KEY in {} is not",
        ),
        (Kind.COMETAPI, {"COMETAPI_KEY": "'sk-new'\r"}, None),
        (Kind.COMETAPI, {}, None),
        (Kind.GOOGLE, {}, None),
        (
            Kind.GOOGLE,
            {"GOOGLE_API_KEY": "g", "GEMINI_API_KEY": "m"},
            "GEMINI_API_KEY in the environment is used, GOOGLE_API_KEY in the environment is not",
        ),
    ],
    ids=["another", "the-same", "beside-alone", "of-another-kind", "google"],
)
def test_a_second_key_that_is_not_used_is_named_without_showing_either(tmp_path, kind, environ, told):
    (tmp_path / ".env").write_text("COMETAPI_KEY=sk-new\n")
    said = key_doubt(ProviderSettings(kind=kind), environ=environ, dotenv_dir=tmp_path)
    assert said == (None if told is None else f"two API keys are set: {told.format(tmp_path / '.env')}")


@pytest.mark.parametrize(
    ("settings", "key", "is_told"),
    [
        (ProviderSettings(kind=Kind.COMETAPI), "AIzaSy-1", True),
        (ProviderSettings(kind=Kind.COMETAPI), "Bearer AIzaSy-1", True),
        (ProviderSettings(kind=Kind.COMETAPI), "sk-1", False),
        (ProviderSettings(kind=Kind.COMETAPI, base_url="https://gateway.example"), "AIzaSy-1", False),
        (ProviderSettings(kind=Kind.GOOGLE, api_key_env="COMETAPI_KEY"), "sk-1", True),
    ],
)
def test_a_key_that_looks_like_another_kinds_is_told_without_showing_it(tmp_path, settings, key, is_told):
    said = key_doubt(settings, environ={"COMETAPI_KEY": key}, dotenv_dir=tmp_path)
    assert (said is not None) is is_told
    assert said is None or ("COMETAPI_KEY in the environment begins with" in said and key not in said)


def test_known_keys_are_those_of_every_kind_and_beside_the_manifest(tmp_path):
    (tmp_path / ".env").write_text("SHOP_KEY=0123456789abcdef\nSHOP_NAME=a-long-name-of-a-shop\nMY_KEY=short\n")
    environ = {"COMETAPI_KEY": "Bearer sk-12345", "GEMINI_API_KEY": "tiny", "CI_TOKEN": "'fedcba9876543210'"}
    assert known_keys(environ=environ, dotenv_dir=tmp_path) == ("sk-12345", "fedcba9876543210", "0123456789abcdef")

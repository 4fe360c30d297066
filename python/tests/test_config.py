"""``nameko.config``."""

from nameko import config


def test_patch_is_undone_after_its_block():
    with config.patch({"a": 1}, clear=True):
        with config.patch({"b": 2}):
            assert config == {"a": 1, "b": 2}
        assert config == {"a": 1}

        @config.patch({"c": 3}, clear=True)
        def patched():
            return dict(config)

        assert patched() == {"c": 3}
        assert config == {"a": 1}


def test_setup_replaces_all_values():
    with config.patch({"a": 1}):
        config.setup({"b": 2})
        assert config == {"b": 2}

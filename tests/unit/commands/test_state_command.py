"""The tables and the JSON of runtimes, with other bundles in them."""

from runrootless.commands.state import with_user_bundles

BUNDLES = {"/run/user/1000/runrootless/a-01234567": "/home/u/a b", "/run/user/2": "/s"}


def test_a_table_of_runc_is_as_wide_as_need_be() -> None:
    table = """\
ID          PID         STATUS      BUNDLE                                  CREATED   OWNER
a           1           running     /run/user/1000/runrootless/a-01234567   2026-11   me
other       2           running     /srv/other                              2026-12   me
"""
    assert (
        with_user_bundles(table, BUNDLES)
        == """\
ID          PID         STATUS      BUNDLE        CREATED   OWNER
a           1           running     /home/u/a b   2026-11   me
other       2           running     /srv/other    2026-12   me
"""
    )


def test_a_table_of_crun_has_one_width_over_which_a_row_may_run() -> None:
    table = """\
NAME PID       STATUS   BUNDLE PATH                CREATED      OWNER
a    1         running  /run/user/1000/runrootless/a-01234567 2026-11   me
b    1         running  /run/user/2                2026-11   me
c    2         running  /srv/other                 2026-12   me
"""
    assert (
        with_user_bundles(table, BUNDLES)
        == """\
NAME PID       STATUS   BUNDLE PATH                CREATED      OWNER
a    1         running  /home/u/a b                2026-11   me
b    1         running  /s                         2026-11   me
c    2         running  /srv/other                 2026-12   me
"""
    )


def test_json_keeps_its_form() -> None:
    text = '{\n  "id": "a",\n  "bundle": "/run/user/1000/runrootless/a-01234567"\n}'
    assert with_user_bundles(text, BUNDLES) == '{\n  "id": "a",\n  "bundle": "/home/u/a b"\n}'
    text = '[{"bundle":"/run/user/1000/runrootless/a-01234567/x"},{"bundle":"/run/user/2"}]'
    assert with_user_bundles(text, BUNDLES) == text.replace("/run/user/2", "/s")


def test_other_words_stay() -> None:
    for text in ("a\nb\n", "", "container does not exist\n"):
        assert with_user_bundles(text, BUNDLES) == text

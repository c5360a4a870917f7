"""Completions for bash, zsh and fish. IDs of containers are those that ``list`` tells."""

from __future__ import annotations

from runrootless.command_line.manual import COMMANDS, CONTAINER, PROGRAM, Command

FILES = ("FILE", "PATH", "SOCKET")
DIRECTORIES = ("DIR",)


def _takes_container(one: Command) -> bool:
    return CONTAINER in one.arguments.split()


def _spellings(one: Command) -> list[str]:
    return [spelling for spellings, _, _ in one.options() for spelling in spellings]


def _kind(one: Command, spelling: str, value: str) -> str:
    """Return what the value of a flag is: its choices, or "files", "directories" or "other"."""
    choices = one.choices(spelling.lstrip("-"))
    if choices:
        return " ".join(choices)
    if value in DIRECTORIES:
        return "directories"
    return "files" if any(part in FILES for part in value.split("|")) else "other"


def _values(one: Command) -> list[tuple[list[str], str]]:
    """Return the spellings of each flag that takes a value, and its kind."""
    return [
        (spellings, _kind(one, spellings[0], value))
        for spellings, value, _ in one.options()
        if value
    ]


_BASH_ACTIONS = {
    "files": 'compopt -o filenames; COMPREPLY=($(compgen -f -- "$current"))',
    "directories": 'compopt -o filenames; COMPREPLY=($(compgen -d -- "$current"))',
    "other": "COMPREPLY=()",
}


def _bash_words(words: str) -> str:
    return f'COMPREPLY=($(compgen -W "{words}" -- "$current"))'


def bash() -> str:
    """Return the completion of bash."""
    valued = "|".join(spelling for spellings, _ in _values(PROGRAM) for spelling in spellings)
    lines = [
        "# Completion of runrootless for bash: made by packaging/generate.py.",
        "# shellcheck shell=bash disable=SC2207",
        "",
        "_runrootless() {",
        "    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]}",
        "    local command='' index=1",
        "    local -a global=()",
        "    # An = is a word of its own here.",
        "    if [[ $current == = ]]; then",
        "        current=''",
        "    elif [[ $previous == = ]]; then",
        "        previous=${COMP_WORDS[COMP_CWORD-2]}",
        "    fi",
        "    while ((index < COMP_CWORD)); do",
        "        case ${COMP_WORDS[index]} in",
        f"            {valued})",
        "                if [[ ${COMP_WORDS[index+1]} == = ]]; then",
        '                    global+=("${COMP_WORDS[index]}=${COMP_WORDS[index+2]}")',
        "                    ((index += 2))",
        "                else",
        '                    global+=("${COMP_WORDS[index]}" "${COMP_WORDS[index+1]}")',
        "                    ((index += 1))",
        "                fi",
        "                ;;",
        '            -*) global+=("${COMP_WORDS[index]}") ;;',
        "            *) command=${COMP_WORDS[index]}; break ;;",
        "        esac",
        "        ((index += 1))",
        "    done",
        "    case $command in",
    ]
    for one in (PROGRAM, *COMMANDS):
        lines.append(f"        {one.name or chr(39) * 2})")
        values = _values(one)
        if values:
            lines.append("            case $previous in")
            for spellings, kind in values:
                action = _BASH_ACTIONS.get(kind) or _bash_words(kind)
                lines.append(f"                {'|'.join(spellings)}) {action}; return ;;")
            lines.append("            esac")
        if spellings := _spellings(one):
            lines.append("            if [[ $current == -* ]]; then")
            lines.append(f"                {_bash_words(' '.join(spellings))}")
            lines.append("                return")
            lines.append("            fi")
        lines.append(f"            {_bash_arguments(one)}")
        lines.append("            ;;")
    lines += ["    esac", "}", "complete -F _runrootless runrootless"]
    return "\n".join(lines) + "\n"


def _bash_arguments(one: Command) -> str:
    if one is PROGRAM:
        return _bash_words(" ".join(command.name for command in COMMANDS))
    if one.words:
        return _bash_words(" ".join(one.words))
    if _takes_container(one):
        return _bash_words('$("${COMP_WORDS[0]}" "${global[@]}" list --quiet 2>/dev/null)')
    return _BASH_ACTIONS[one.files or "other"]


_ZSH_ACTIONS = {"files": "_files", "directories": "_files -/", "other": "( )"}


def _quoted(text: str) -> str:
    """Return a word for zsh and fish that stands for itself."""
    return "'" + text.replace("\\", "\\\\").replace("'", "'\\''") + "'"


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _zsh_specs(one: Command, indent: str) -> list[str]:
    lines = []
    for spellings, value, text in one.options():
        shown = text.replace("[", "\\[").replace("]", "\\]").replace(":", "\\:")
        action = ""
        if value:
            kind = _kind(one, spellings[0], value)
            action = f":{value.replace(':', ' ')}:{_ZSH_ACTIONS.get(kind) or f'({kind})'}"
        repeats = "*" if one.flags and spellings[0].lstrip("-") in one.flags.lists else ""
        for spelling in spellings:
            sign = ("=" if spelling.startswith("--") else "+") if value else ""
            lines.append(f"{indent}{_quoted(f'{repeats}{spelling}{sign}[{shown}]{action}')} \\")
    return lines


def zsh() -> str:
    """Return the completion of zsh."""
    valued = [spelling for spellings, _ in _values(PROGRAM) for spelling in spellings]
    lines = [
        "#compdef runrootless",
        "# Made by packaging/generate.py.",
        "",
        "_runrootless_containers() {",
        "    local -a found",
        '    found=(${(f)"$(_call_program containers $words_before list --quiet 2>/dev/null)"})',
        "    compadd -a found",
        "}",
        "",
        "_runrootless() {",
        "    local curcontext=$curcontext state line",
        "    local -a words_before",
        "    typeset -A opt_args",
        "    words_before=($words[1])",
        "    local word is_value=no",
        "    for word in $words[2,CURRENT-1]; do",
        "        [[ $is_value == yes || $word == -* ]] || break",
        "        words_before+=($word)",
        f"        [[ $is_value == no && $word == ({'|'.join(valued)}) ]] && is_value=yes ||"
        " is_value=no",
        "    done",
        "    _arguments -C \\",
        *_zsh_specs(PROGRAM, "        "),
        "        '1:command:->command' \\",
        "        '*::argument:->argument'",
        "    case $state in",
        "        command)",
        "            local -a commands",
        "            commands=(",
    ]
    for one in COMMANDS:
        lines.append(f"                {_quoted(f'{one.name}:{one.summary}')}")
    lines += [
        "            )",
        "            _describe command commands",
        "            ;;",
        "        argument)",
        "            case $words[1] in",
    ]
    for one in COMMANDS:
        lines += [
            f"                {one.name})",
            "                    _arguments \\",
            *_zsh_specs(one, "                        "),
            f"                        {_quoted(f'*:{_zsh_arguments(one)}')}",
            "                    ;;",
        ]
    lines += ["            esac", "            ;;", "    esac", "}", "", '_runrootless "$@"']
    return "\n".join(lines) + "\n"


def _zsh_arguments(one: Command) -> str:
    if one.words:
        return f"program:({' '.join(one.words)})"
    if _takes_container(one):
        return "container:_runrootless_containers"
    return f"argument:{_ZSH_ACTIONS[one.files or 'other']}"


def fish() -> str:
    """Return the completion of fish."""
    valued = " ".join(spelling for spellings, _ in _values(PROGRAM) for spelling in spellings)
    lines = [
        "# Completion of runrootless for fish: made by packaging/generate.py.",
        "",
        "# Prints the words up to the command, less that: the program and the global flags.",
        "function __runrootless_before",
        "    set -l is_value no",
        "    for word in (commandline -opc)",
        "        if test $is_value = yes; or string match -qr '^-|(^|/)runrootless$' -- $word",
        "            echo -- $word",
        f"            test $is_value = no; and contains -- $word {valued}",
        "            and set is_value yes; or set is_value no",
        "        else",
        "            return",
        "        end",
        "    end",
        "end",
        "",
        "# Prints the command, nothing where there is none as yet.",
        "function __runrootless_command",
        "    set -l words (commandline -opc)",
        "    set -l before (__runrootless_before)",
        "    set -l place (math (count $before) + 1)",
        "    set -q words[$place]; and echo -- $words[$place]",
        "end",
        "",
        "function __runrootless_containers",
        "    set -l words (__runrootless_before)",
        "    $words list --quiet 2>/dev/null",
        "end",
        "",
        "complete -c runrootless -f",
    ]
    for one in (PROGRAM, *COMMANDS):
        condition = f'test "$(__runrootless_command)" = "{one.name}"'
        start = f"complete -c runrootless -n {_fish_quoted(condition)}"
        for spellings, value, text in one.options():
            names = [
                f"-l {spelling[2:]}" if spelling.startswith("--") else f"-s {spelling[1:]}"
                for spelling in spellings
            ]
            lines.append(
                " ".join([start, *names, *_fish_value(one, spellings[0], value)])
                + f" -d {_fish_quoted(text)}"
            )
        if one is PROGRAM:
            for command in COMMANDS:
                words = f"-a {command.name} -d {_fish_quoted(command.summary)}"
                lines.append(f"{start} {words}")
        elif one.words:
            lines.append(f"{start} -a {_fish_quoted(' '.join(one.words))}")
        elif _takes_container(one):
            lines.append(f"{start} -a '(__runrootless_containers)'")
        elif one.files == "directories":
            lines.append(f"{start} -a '(__fish_complete_directories)'")
        elif one.files:
            lines.append(f"{start} -F")
    return "\n".join(lines) + "\n"


def _fish_value(one: Command, spelling: str, value: str) -> list[str]:
    if not value:
        return []
    kind = _kind(one, spelling, value)
    if kind == "files":
        return ["-r", "-F"]
    if kind == "directories":
        return ["-x", "-a", "'(__fish_complete_directories)'"]
    return ["-x"] if kind == "other" else ["-x", "-a", _fish_quoted(kind)]

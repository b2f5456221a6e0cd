"""Shell completion: a script for bash or zsh that knows the commands, their settings and the words that these may be.

It is printed once, into a shell's start-up file or its folder of completions, and runs without Python: `stillreel pre<TAB>`
answers at once. Commands, keys, values of a choice, presets and benchmarks are completed; all else is a file.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from stillreel.commands import COMMANDS, Command
from stillreel.configs.benchmark import BENCHMARKS
from stillreel.configs.errors import RequestError
from stillreel.configs.settings import Settings, choices_of, groups_of, preset_names, settings_of


def completion_script(shell: str) -> str:
    """The script of `bash` or `zsh`; RequestError for another one."""
    if shell not in _SCRIPTS:
        raise RequestError(
            f'expected bash or zsh, given {shell or "nothing"}; as in: eval "$(stillreel --completion bash)"'
        )
    return _SCRIPTS[shell].replace("@TABLES@", _tables())


def _tables() -> str:
    """Shell functions that echo the commands, a command's keys, its first argument's names, and a setting's values."""
    from stillreel.cli import settings_model

    keys: dict[str, list[str]] = defaultdict(list)  # by what is told, whom it is told
    names: dict[str, list[str]] = defaultdict(list)
    values: dict[str, list[str]] = defaultdict(list)
    for name, command in COMMANDS.items():
        words = _words_of_settings(command, settings_model(command.settings))
        keys[" ".join(words)].append(name)
        if first := _first_arguments(command):
            names[" ".join(first)].append(name)
        for key, choices in words.items():
            if choices:
                values[" ".join(choices)].append(f"{name}:{key}")
    return "\n".join(
        (
            f'_stillreel_commands() {{ echo "{" ".join((*COMMANDS, "--help", "--version", "--completion"))}"; }}',
            _function("_stillreel_keys", "$1", keys),
            _function("_stillreel_names", "$1", names),
            _function("_stillreel_values", "$1:$2", values),
        )
    )


def _words_of_settings(command: Command, model: type[Settings]) -> dict[str, tuple[str, ...]]:
    """The words that each setting of a command may be, none where it may be anything."""
    words = {"preset": tuple(preset_names(command.folder))}
    words |= {one.path: tuple(preset_names(one.presets)) for one in groups_of(model) if one.presets}
    for one in settings_of(model):
        words[one.path] = choices_of(one.kind) or (tuple(preset_names(one.presets)) if one.presets else ())
    return words


def _first_arguments(command: Command) -> tuple[str, ...]:
    if command.presets:
        return tuple(preset_names(command.presets))
    return BENCHMARKS if command.positionals[:1] == ("BENCHMARK",) else ()


def _function(name: str, asked: str, answers: Mapping[str, list[str]]) -> str:
    cases = "\n".join(f'    {"|".join(patterns)}) echo "{told}" ;;' for told, patterns in answers.items())
    return f'{name}() {{\n  case "{asked}" in\n{cases}\n  esac\n}}'


_BASH = r"""# bash completion of stillreel (bash 4 or later): eval "$(stillreel --completion bash)"
@TABLES@
_stillreel_files() {
  local file
  while IFS= read -r file; do
    [[ -d $file ]] && file+=/
    printf '%q\n' "$file"
  done < <(compgen -f -- "$1")
}
_stillreel() {
  local line=${COMP_LINE:0:COMP_POINT} word last key="" value choices prefix=""
  local -a words
  read -ra words <<< "$line"
  word=${line##*[[:space:]]}  # bash itself breaks words at = and :
  [[ -n $word ]] && unset "words[-1]"
  COMPREPLY=()
  if (( ${#words[@]} < 2 )); then
    COMPREPLY=($(compgen -W "$(_stillreel_commands)" -- "$word"))
    return
  fi
  last=${words[-1]}
  if [[ ${words[1]} == --completion ]]; then
    COMPREPLY=($(compgen -W "bash zsh" -- "$word"))
    return
  fi
  if [[ $word == *=* ]]; then
    key=${word%%=*} value=${word#*=}
    [[ $COMP_WORDBREAKS == *=* ]] || prefix="$key="
  elif [[ $last == --* && $last != *=* && $word != --* ]]; then
    key=$last value=$word
    [[ $last == --help ]] && choices=all
  fi
  if [[ -n $key ]]; then
    key=${key#--} key=${key//-/_}
    choices=${choices:-$(_stillreel_values "${words[1]}" "$key")}
    # A bare flag takes no value: what follows it is a word of its own.
    [[ $word != *=* && ( $choices == "true false" || $key == print_config ) ]] && key=""
  fi
  if [[ -n $key ]]; then
    COMPREPLY=($(compgen -W "$choices" -- "$value"))
    (( ${#COMPREPLY[@]} )) || mapfile -t COMPREPLY < <(_stillreel_files "$value")
    COMPREPLY=("${COMPREPLY[@]/#/$prefix}")
  else
    local keys names
    keys=$(_stillreel_keys "${words[1]}")
    (( ${#words[@]} == 2 )) && names=$(_stillreel_names "${words[1]}")
    if [[ $word == --* ]]; then
      COMPREPLY=($(compgen -P -- -S = -W "$keys" -- "${word#--}") $(compgen -W "--help --print-config" -- "$word"))
    else
      COMPREPLY=($(compgen -W "$names" -- "$word") $(compgen -S = -W "$keys" -- "$word"))
      mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(_stillreel_files "$word")
    fi
  fi
  [[ ${COMPREPLY[*]} == *[=/]* ]] && compopt -o nospace
}
complete -F _stillreel stillreel"""

_ZSH = r"""#compdef stillreel
# zsh completion of stillreel: eval "$(stillreel --completion zsh)" after compinit, or saved as _stillreel in a folder of $fpath
@TABLES@
_stillreel() {
  local command=${words[2]} last=${words[CURRENT-1]} key="" choices=""
  local -a keys
  if (( CURRENT == 2 )); then
    compadd -- $(_stillreel_commands)
    return
  fi
  if [[ $command == --completion ]]; then
    compadd -- bash zsh
    return
  fi
  if [[ $PREFIX == *=* ]]; then
    key=${PREFIX%%=*}
    compset -P '*='
  elif [[ $last == --* && $last != *=* && $PREFIX != --* ]]; then
    key=$last
  fi
  if [[ -n $key ]]; then
    key=${${key#--}//-/_}
    choices=$(_stillreel_values $command $key)
    [[ $key == help ]] && choices=all
    # A bare flag takes no value: what follows it is a word of its own.
    [[ $last == --$key && ( $choices == "true false" || $key == print_config ) ]] && key=""
  fi
  if [[ -n $key ]]; then
    [[ -n $choices ]] && compadd -- ${=choices} && return
    _files
    return
  fi
  keys=($(_stillreel_keys $command))
  if [[ $PREFIX == --* ]]; then
    compadd -S '' -- --${^keys}=
    compadd -- --help --print-config
  else
    (( CURRENT == 3 )) && compadd -- $(_stillreel_names $command)
    compadd -S '' -- ${^keys}=
    _files
  fi
}
if [[ ${funcstack[1]} == _stillreel ]]; then
  _stillreel "$@"
else
  compdef _stillreel stillreel
fi"""

_SCRIPTS = {"bash": _BASH, "zsh": _ZSH}

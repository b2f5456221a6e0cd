"""What other codebases call a thing, and what it is called here: asked before spelling is, for `learning_rate` is nothing like
`optimizer.lr`. A term that has no setting says why.

A term is looked up without `_` and `-`, whole or by its last part (configs/answers.py). A setting may come with a value; a
name in capitals is a positional argument. Only what a command has is told.
"""

from stillreel.configs.synonyms import clips, runs, training
from stillreel.configs.synonyms.synonym import Synonym

__all__ = ["SYNONYMS", "Synonym"]

SYNONYMS: dict[str, Synonym] = {
    term.replace("_", ""): synonym
    for terms, synonym in (*training.TERMS, *runs.TERMS, *clips.TERMS)
    for term in terms.split()
}

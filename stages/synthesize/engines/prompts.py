"""Rephrasing recipes: instructions by name, each after the paper that measured it.

- `RECIPES`: name -> `Recipe`
- `chat_messages`: the recipe for a model that follows instructions
- `continuation_prompt`: the recipe for a model that only continues text
"""

from typing import Literal, NamedTuple

WRAP = "WRAP: Maini et al. 2024, 2401.16380"
FINEPHRASE = "FinePhrase: Niklaus et al. 2026, 2604.13977"
NEMOTRON = "Nemotron-CC: Su et al. 2024, 2412.02595"

RecipeName = Literal[
    "wrap_easy", "wrap_medium", "wrap_hard", "wrap_questions",
    "finephrase_table", "finephrase_faq", "finephrase_math", "finephrase_tutorial", "nemotron_distill",
]  # fmt: skip


class Recipe(NamedTuple):
    """An instruction and what its result is called."""

    source: str
    instruction: str
    heading: str
    """Line before the result, in the prompt of a model that only continues text."""


_FACTS = "Keep every number, unit and name as it is, add no facts, and write in the language of the text."
RECIPES: dict[RecipeName, Recipe] = {
    "wrap_easy": Recipe(
        WRAP, "Paraphrase the text with a very small vocabulary and extremely simple sentences, for a toddler.",
        "The same in very simple words:",
    ),
    "wrap_medium": Recipe(
        WRAP, "Paraphrase the text diversely, in high-quality language like that of sentences on Wikipedia.",
        "The same as in an encyclopedia:",
    ),
    "wrap_hard": Recipe(
        WRAP, "Paraphrase the text tersely and abstrusely, in rare and complex words that only scholars know.",
        "The same in the words of a scholar:",
    ),
    "wrap_questions": Recipe(
        WRAP, 'Convert the text into a conversation of several questions and answers, as "Question:" and "Answer:".',
        "The same as questions and answers:",
    ),
    "finephrase_table": Recipe(
        FINEPHRASE, "Organize the key information of the text as a Markdown table, and then write a question about the "
        "table and its answer.",
        "The same as a table:",
    ),
    "finephrase_faq": Recipe(
        FINEPHRASE, "Convert the text into a comprehensive FAQ, in which every answer can be understood by itself.",
        "The same as frequently asked questions:",
    ),
    "finephrase_math": Recipe(
        FINEPHRASE, "Make a word problem of the numbers and relations in the text, and solve it step by step.",
        "A word problem on it, and its solution:",
    ),
    "finephrase_tutorial": Recipe(
        FINEPHRASE, "Rewrite the text as a tutorial with numbered steps.", "The same step by step:",
    ),
    "nemotron_distill": Recipe(
        NEMOTRON, "Rewrite the text concisely and clearly; keep its essential content, examples and terms.",
        "The same in short:",
    ),
}  # fmt: skip


def chat_messages(recipe: RecipeName, text: str) -> list[dict[str, str]]:
    """Messages of a chat completion."""
    system = f"{RECIPES[recipe].instruction} {_FACTS} Answer with the new text alone."
    return [{"role": "system", "content": system}, {"role": "user", "content": text}]


def continuation_prompt(recipe: RecipeName, text: str) -> str:
    """Beginning of a document whose continuation is the new text."""
    return f"{text.strip()}\n\n{RECIPES[recipe].heading}\n\n"

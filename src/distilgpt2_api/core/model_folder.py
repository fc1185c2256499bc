"""Names of a model folder's files other than weights, as `transformers` and OpenAI's first release write them.

`serve` reads, `pull` fetches and images contain the files in these lists.
"""

CONFIG_FILE = "config.json"
GENERATION_CONFIG_FILE = "generation_config.json"
TOKENIZER_FILE = "tokenizer.json"
VOCABULARY_FILES = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
"""As `transformers` names them, and as OpenAI published them."""
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
SPECIAL_TOKENS_FILE = "special_tokens_map.json"
ADDED_TOKENS_FILE = "added_tokens.json"
CHAT_TEMPLATE_FILE = "chat_template.jinja"

TOKENIZER_FORMS = ((TOKENIZER_FILE,), *VOCABULARY_FILES)
"""Each is a complete tokenizer. The first one in a folder is read."""
OPTIONAL_FILES = (
    GENERATION_CONFIG_FILE,
    TOKENIZER_CONFIG_FILE,
    SPECIAL_TOKENS_FILE,
    ADDED_TOKENS_FILE,
    CHAT_TEMPLATE_FILE,
)
"""Read if they exist."""
DOCUMENT_FILES = ("README.md", "LICENSE")
"""Never read, but part of a copy of the model."""
COMPANION_FILES = (
    CONFIG_FILE,
    *(name for form in TOKENIZER_FORMS for name in form),
    *OPTIONAL_FILES,
    *DOCUMENT_FILES,
)

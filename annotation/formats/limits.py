"""How much of anything a file may hold. Every limit is far above honest data and far below what would hurt."""

MAX_PROBLEMS = 50  # collected, then reading stops

MAX_RECORD_BYTES = 256 * 1024  # of one line of JSONL or CSV, in the file's encoding
MAX_DIALOGUE_BYTES = 1024 * 1024  # of one SMILECHAT file or one entry of a JSON array; real ones have 10 kB
MAX_DIALOGUE_TURNS = 400  # the longest dialogue of SMILECHAT has 39
MAX_KEY_CHARACTERS = 100  # leaves room for "#12" in Item.key
MAX_ITEM_KEY_CHARACTERS = 120
MAX_TOPIC_CHARACTERS = 120
MAX_REPEAT = 32767  # a small integer on every database
MAX_ROWS = 100_000  # of a CSV file or a sheet

MAX_ARCHIVE_MEMBERS = 200_000  # SMILECHAT has 55,165
MAX_ARCHIVE_BYTES = 4 * 1024**3  # unpacked, counted while reading; SMILECHAT has 466 MB
MAX_SKIPPED_BYTES = 64 * 1024**2  # unpacked between two files we read: notes, headers

MAX_XLSX_BYTES = 5 * 1024**2
MAX_XLSX_PARTS = 500
MAX_XLSX_UNPACKED_BYTES = 48 * 1024**2  # 72 MB of XML were measured to take openpyxl 44 s
MAX_XLSX_COLUMNS = 64

"""Files ► records: dialogues, items and responses from the formats people have. Pure: no Django, no database.

`problems` says what is wrong and where; `source` looks at bytes (digest, encoding, kind of file); `strict` holds
JSON and text to the rules; `archives` and `tables` open containers; `dialogues` and `rows` yield records. All of it
streams: memory does not grow with the file.
"""

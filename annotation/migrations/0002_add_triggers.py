"""Append-only logs, frozen studies and values on their scale, held by the database itself."""

from django.db import migrations

from annotation import triggers


class Migration(migrations.Migration):
    dependencies = [("annotation", "0001_initial")]

    operations = [
        migrations.RunPython(
            lambda apps, schema_editor: triggers.install(schema_editor),
            lambda apps, schema_editor: triggers.remove(schema_editor),
        )
    ]

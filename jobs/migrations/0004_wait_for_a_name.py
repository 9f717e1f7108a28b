"""A job that has to wait for another says what for."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("jobs", "0003_measure_speed")]

    operations = [
        migrations.AddField("job", "waits_for", models.CharField(blank=True, default="", max_length=300), preserve_default=False),
    ]

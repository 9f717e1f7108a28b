"""Few placements are flagged: the researcher's pages find them without reading the others."""

from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    dependencies = [("annotation", "0003_add_cache_table")]

    operations = [
        migrations.AddIndex(
            "placement",
            models.Index(fields=["rater"], name="flagged_placements", condition=Q(is_flagged=True)),
        )
    ]

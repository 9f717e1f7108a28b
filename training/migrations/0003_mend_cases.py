from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("training", "0002_runs")]

    operations = [
        migrations.AddField("reviewcase", "mended", models.JSONField(default=list)),
        migrations.AddField("reviewcase", "mended_digest", models.CharField(blank=True, max_length=64)),
        migrations.AddConstraint(
            "reviewcase",
            models.CheckConstraint(
                condition=models.Q(mended_digest="") | models.Q(verdict="keep"), name="only_what_is_kept_is_mended"
            ),
        ),
    ]

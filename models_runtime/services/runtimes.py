"""set_runtime, set_key, save_template, note_version: how a system answers, and what it was when it did."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Max
from django.utils.translation import gettext as _

from annotation.errors import DomainError
from annotation.models import System, User
from annotation.secrets import seal, unseal
from annotation.services.audit import record
from models_runtime.endpoints.allowed import AllowList
from models_runtime.endpoints.errors import NotAllowed
from models_runtime.endpoints.secret import Secret
from models_runtime.engine.prompts import TEMPLATES, BadTemplate, Template
from models_runtime.models import PromptTemplate, Runtime, RuntimeVersion
from models_runtime.runtimes import ENDPOINT, LOCAL, EndpointSettings, LocalSettings, Settings


class RuntimeRefused(DomainError):
    """Settings that cannot be used. `detail["field"]` says which one."""

    code = "runtime_refused"


class FolderRefused(RuntimeRefused):
    """A folder outside of MODEL_DIRS and RUN_DIR."""

    code = "folder_refused"


@transaction.atomic
def set_runtime(*, system: System, settings: Settings, by: User | None) -> Runtime:
    """Say how a system answers from now on. Batches that were launched go on as they were.

    Raises RuntimeRefused if the folder or endpoint is not allowed, or the system is the human reference.
    """
    if system.kind == System.Kind.REFERENCE:
        raise RuntimeRefused(_("The human reference is written by people; no model answers for it."))
    kind = LOCAL if isinstance(settings, LocalSettings) else ENDPOINT
    if isinstance(settings, LocalSettings):
        folder_of(settings.weights)
        if settings.adapter:
            folder_of(settings.adapter)
    else:  # in one way of writing: an endpoint's jobs wait for each other, and know each other by it
        base_url, _origin = check_endpoint(settings.base_url).check(settings.base_url)
        settings = replace(settings, base_url=base_url)
    runtime = Runtime.objects.select_for_update().filter(system=system).first()
    if runtime is None:
        runtime = Runtime(system=system)
    elif runtime.sealed_key and _is_other_server(runtime, settings):
        runtime.sealed_key = ""  # a key belongs to the server that gave it out
    runtime.kind, runtime.settings, runtime.check_job = kind, settings.to_json(), None
    runtime.save()
    record("runtime.changed", by=by, system=system.pk, kind=kind)
    return runtime


def _is_other_server(runtime: Runtime, settings: Settings) -> bool:
    return not isinstance(settings, EndpointSettings) or runtime.settings.get("base_url") != settings.base_url


@transaction.atomic
def set_key(*, runtime: Runtime, key: str, by: User | None) -> None:
    """Keep an endpoint's key, sealed; "" forgets it. Raises RuntimeRefused if it cannot be a key."""
    try:
        sealed = seal(Secret(key).reveal()) if key else ""
    except ValueError as error:
        message = _("A key is one word of printable ASCII characters. Copy it anew from the provider’s page.")
        raise RuntimeRefused(message, field="key") from error
    Runtime.objects.filter(pk=runtime.pk).update(sealed_key=sealed)
    runtime.sealed_key = sealed
    record("runtime.key_changed", by=by, system=runtime.system_id, is_set=bool(key))


def key_of(runtime: Runtime | None) -> Secret | None:
    """The key to call with, None if there is none."""
    return Secret(unseal(runtime.sealed_key)) if runtime and runtime.sealed_key else None


def folder_of(path: str) -> Path:
    """The folder meant, links resolved; a relative path begins in one of MODEL_DIRS or, of what was trained here, in
    RUN_DIR. Raises FolderRefused.
    """
    roots = [*settings.MODEL_DIRS, settings.RUN_DIR]
    found = below(path, roots)
    if found is None:
        raise FolderRefused(
            _("%(path)s is not below one of the folders that models may lie in: %(roots)s.")
            % {"path": path, "roots": ", ".join(map(str, roots))},
            field="weights",
        )
    return found


def below(path: str, roots: Iterable[Path]) -> Path | None:
    """The file or folder meant, links resolved; a relative path begins in one of `roots`. None if it lies elsewhere."""
    given, roots = Path(path), [Path(root).resolve() for root in roots]
    tries = [given] if given.is_absolute() else [root / given for root in roots]
    try:
        found = next((one for one in tries if one.exists()), tries[0]).resolve()
    except (OSError, ValueError):  # longer than any name of a file, or no name at all
        return None
    return found if any(found.is_relative_to(root) for root in roots) else None


def look_into(folder: Path) -> str:
    """What is wrong with a folder of weights as far as this machine can see, "" if nothing is; no torch is needed.

    The worker may be on another machine, so this is advice and no verdict.
    """
    if not folder.is_dir():
        return _("There is no folder %(path)s on this machine. The worker’s machine needs it.") % {"path": folder}
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        has_type = isinstance(config, dict) and isinstance(config.get("model_type"), str)
    except (OSError, ValueError):
        has_type = False
    if not has_type:
        return _("%(path)s has no config.json that names a model type.") % {"path": folder}
    return ""


def check_endpoint(base_url: str) -> AllowList:
    """The list of endpoints that may be called. Raises RuntimeRefused if this one is not on it."""
    try:
        allowed = AllowList.parse(settings.ALLOWED_ENDPOINTS)
        allowed.check(base_url)
    except NotAllowed as error:
        message = _("This endpoint may not be called. Whoever runs the site can add it to ALLOWED_ENDPOINTS.")
        raise RuntimeRefused(f"{message} {error}", field="base_url") from error
    return allowed


@transaction.atomic
def save_template(*, content: dict[str, Any], by: User | None) -> PromptTemplate:
    """A new version of a template; the same content again is the version that is there. Raises RuntimeRefused."""
    try:
        template = Template.from_json(content)
    except BadTemplate as error:
        raise RuntimeRefused(str(error)) from error
    published = TEMPLATES.get(template.id)
    if published is not None and published.version == template.version:
        raise RuntimeRefused(_("This is the text that comes with the program: nothing to save."))
    found, is_new = PromptTemplate.objects.get_or_create(
        template_id=template.id,
        version=template.version,
        defaults={"content": template.to_json(), "created_by": by},
    )
    if is_new:
        record("template.saved", by=by, template=template.id, version=template.version)
    return found


def note_version(system: System, digest: str, spec: dict[str, Any]) -> RuntimeVersion:
    """The system's version of this digest, written down when it is met for the first time."""
    while True:
        found = RuntimeVersion.objects.filter(system=system, digest=digest).first()
        if found is not None:
            return found
        number = (RuntimeVersion.objects.filter(system=system).aggregate(n=Max("number"))["n"] or 0) + 1
        try:
            with transaction.atomic():
                return RuntimeVersion.objects.create(system=system, number=number, digest=digest, spec=spec)
        except IntegrityError:
            continue  # somebody else was faster: look again

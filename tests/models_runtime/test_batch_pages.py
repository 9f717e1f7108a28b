"""The pages: how a system answers, what a batch will take, launching it, watching it."""

from __future__ import annotations

import json
import re
import uuid
from datetime import date, timedelta
from decimal import Decimal

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.urls import reverse
from django.utils import timezone

from annotation.models import Response, StudyItem
from annotation.secrets import unseal
from annotation.views import once
from jobs import ledger
from jobs.models import Job
from models_runtime.endpoints.budget import Price
from models_runtime.endpoints.values import Sampling
from models_runtime.engine.prompts import TEMPLATES
from models_runtime.engine.spec import PRESETS
from models_runtime.models import BatchPart, GenerationBatch, GenerationFailure, PromptTemplate, Runtime
from models_runtime.runtimes import EndpointSettings, LocalSettings
from models_runtime.selectors.estimates import estimate
from models_runtime.services.batches import BatchRefused, Launch, Questions, launch_batch
from models_runtime.services.runtimes import set_runtime
from tests import factories
from tests.at_once import at_once
from tests.models_runtime.batches import launch, local_system, make_dataset

pytestmark = pytest.mark.django_db
KEY = "sk-canary0123456789abcdef"


@pytest.fixture(autouse=True)
def folders(settings, tmp_path):
    settings.MODEL_DIRS = [tmp_path / "models"]
    settings.JOB_LOG_DIR = tmp_path / "logs"
    settings.ALLOWED_ENDPOINTS = ["https://api.example.org"]
    settings.GPU_QUEUES = ["gpu.0"]
    (tmp_path / "models" / "toy").mkdir(parents=True)


@pytest.fixture
def client(admin, as_user):
    return as_user(admin)


LOCAL = {"weights": "toy", "preset": "soulchat-paper", "dtype": "float16", "device": "cuda"}
ENDPOINT = {
    "base_url": "https://api.example.org/v1",
    "model": "toy-1",
    "template": f"chat@{TEMPLATES['chat'].version}",
    "limit_name": "max_tokens",
    "max_new_tokens": "100",
    "max_concurrency": "4",
    "timeout_seconds": "60",
}


def endpoint_system(**changed):
    system = factories.make_system()
    values = {"base_url": "https://api.example.org/v1", "model": "toy-1", "sampling": Sampling(max_new_tokens=100)}
    set_runtime(system=system, settings=EndpointSettings(**{**values, **changed}), by=None)
    return system


# --- How a system answers -------------------------------------------------------------------------------


def test_a_local_model_is_entered_and_shown_again(client):
    system = factories.make_system()
    url = reverse("runtime", args=[system.public_id])
    answer = client.post(f"{url}?kind=local", LOCAL, follow=True)
    told = answer.content.decode()
    assert "Saved." in told and "no config.json" in told  # what this machine can see of the folder
    settings = Runtime.objects.get(system=system).value
    assert isinstance(settings, LocalSettings)
    assert (settings.weights, settings.dtype, settings.device) == ("toy", "float16", "cuda")
    assert settings.decoding == PRESETS["soulchat-paper"].decoding and settings.template is None
    assert 'value="toy"' in client.get(url).content.decode()


def test_decoding_can_be_written_out_and_is_checked(client):
    system = factories.make_system()
    url = reverse("runtime", args=[system.public_id]) + "?kind=local"
    fields = {**LOCAL, "preset": "", "is_sampled": "on", "temperature": "0.7", "top_p": "0.9", "top_k": "20"}
    fields |= {"max_input_tokens": "1000", "max_new_tokens": "64"}
    assert client.post(url, {**fields, "temperature": "0"}).status_code == 422
    assert client.post(url, fields).status_code == 302
    decoding = Runtime.objects.get().value.decoding
    assert (decoding.temperature, decoding.top_k, decoding.max_new_tokens) == (0.7, 20, 64)


@pytest.mark.parametrize("path", ["/etc", "../outside", "toy/../../.."])
def test_weights_lie_below_the_allowed_folders(client, path):
    system = factories.make_system()
    answer = client.post(reverse("runtime", args=[system.public_id]) + "?kind=local", {**LOCAL, "weights": path})
    assert answer.status_code == 422 and "is not below" in answer.content.decode()
    assert not Runtime.objects.exists()


def test_a_link_that_leads_out_of_the_allowed_folders_is_no_way_around(client, tmp_path):
    (tmp_path / "models" / "sly").symlink_to("/etc")
    system = factories.make_system()
    answer = client.post(reverse("runtime", args=[system.public_id]) + "?kind=local", {**LOCAL, "weights": "sly"})
    assert answer.status_code == 422


def test_a_key_goes_in_and_never_comes_out(client):
    system = factories.make_system()
    url = reverse("runtime", args=[system.public_id]) + "?kind=endpoint"
    assert client.post(url, {**ENDPOINT, "key": KEY}).status_code == 302
    runtime = Runtime.objects.get()
    assert unseal(runtime.sealed_key) == KEY
    for address in (
        url,
        "/django-admin/models_runtime/runtime/",
        f"/django-admin/models_runtime/runtime/{runtime.pk}/change/",
    ):
        page = client.get(address, follow=True).content.decode()
        assert "canary" not in page and runtime.sealed_key not in page
    client.post(url, ENDPOINT)  # left empty: kept
    assert unseal(Runtime.objects.get().sealed_key) == KEY
    client.post(url, {**ENDPOINT, "forget_key": "on"})
    assert Runtime.objects.get().sealed_key == ""


@pytest.mark.parametrize(
    "changed",
    [
        {"base_url": "https://evil.example.com/v1"},
        {"base_url": "http://127.0.0.1:22/v1"},
        {"base_url": "file:///etc/passwd"},
        {"key": "two words"},
        {"extra": "[1]"},
        {"extra": '{"model": "other"}'},
        {"currency": "USD"},
        {"currency": "USD", "input_per_million": "1", "output_per_million": "1", "max_new_tokens": ""},
    ],
)
def test_what_an_endpoint_cannot_be(client, changed):
    system = factories.make_system()
    answer = client.post(reverse("runtime", args=[system.public_id]) + "?kind=endpoint", {**ENDPOINT, **changed})
    assert answer.status_code == 422
    assert "two words" not in answer.content.decode()


def test_trying_a_system_out_is_a_job_and_its_answer_is_no_response(client, settings):
    system = local_system(settings.MODEL_DIRS[0] / "toy")
    url = reverse("runtime", args=[system.public_id])
    assert "Try it out" in client.get(url).content.decode()
    for _ in range(2):  # a double click asks once
        client.post(reverse("runtime_try", args=[system.public_id]))
    job = Job.objects.get()
    assert Runtime.objects.get().check_job == job
    assert (job.kind, job.queue) == ("models_runtime.try", "default")
    assert "being tried out" in client.get(url).content.decode()
    claim = ledger.claim(job.pk, worker="w")
    ledger.finish(claim, result={"asked": "你好", "text": "我在听。<b>"})
    page = client.get(url).content.decode()
    assert "我在听。&lt;b&gt;" in page and "hx-get" not in page and not Response.objects.exists()
    client.post(reverse("runtime_try", args=[system.public_id]))
    assert Job.objects.count() == 2


def test_a_template_is_edited_into_a_new_version_and_systems_keep_theirs(client):
    url = reverse("template_detail", args=["mechat-2"])
    page = client.get(url).content.decode()
    assert "来访者：" in page
    template = TEMPLATES["mechat-2"]
    fields = {"layout": template.layout, "client": template.client, "counsellor": template.counsellor}
    fields |= {"separator": "\\n", "instruction": "请写一次回复。\r\n对话：\r\n", "closing": "", "cut_at": '["\\nEND"]'}
    assert client.post(url, fields).status_code == 302
    row = PromptTemplate.objects.get()
    assert row.content["instruction"] == "请写一次回复。\n对话：\n" and row.content["separator"] == "\n"
    assert row.content["cut_at"] == ["\nEND"] and row.version != template.version
    client.post(url, fields)
    assert PromptTemplate.objects.count() == 1  # the same text is the same version
    assert client.post(url, {**fields, "cut_at": "END"}).status_code == 422
    assert client.post(url, {**fields, "client": ""}).status_code == 422
    system = factories.make_system()
    chosen = {**LOCAL, "template": f"mechat-2@{row.version}"}
    client.post(reverse("runtime", args=[system.public_id]) + "?kind=local", chosen)
    client.post(url, {**fields, "instruction": "别的。"})
    assert Runtime.objects.get().value.template.version == row.version
    assert client.get(reverse("template_detail", args=["no-such"])).status_code == 404


def test_a_new_template_is_made_from_nothing_or_as_a_copy_under_a_name_of_its_own(client):
    url = reverse("template_new")
    assert url in client.get(reverse("template_list")).content.decode()
    fields = {"id": "our-lines", "layout": "lines", "client": "甲：", "counsellor": "乙：", "separator": "\\n"}
    assert client.post(url, fields)["Location"] == reverse("template_detail", args=["our-lines"])
    (row,) = PromptTemplate.objects.all()
    copy = f"{url}?copy=our-lines@{row.version}"
    assert copy in client.get(reverse("template_detail", args=["our-lines"])).content.decode()
    page = client.get(copy).content.decode()
    assert 'value="甲："' in page and row.version in page and "our-lines</code>" in page
    assert client.post(copy, {**fields, "id": "our-copy"}).status_code == 302
    assert client.post(reverse("template_detail", args=["our-copy"]), {**fields, "client": "丙："}).status_code == 302
    assert list(PromptTemplate.objects.order_by("pk").values_list("template_id", flat=True)) == [
        "our-lines", "our-copy", "our-copy",
    ]  # fmt: skip
    system = factories.make_system()
    runtime = reverse("runtime", args=[system.public_id]) + "?kind=local"
    assert client.post(runtime, {**LOCAL, "template": f"our-copy@{row.version}"}).status_code == 302
    assert Runtime.objects.get().value.template.id == "our-copy"


@pytest.mark.parametrize("name", ["", "new", "soulchat", "two words", "用户", "x" * 61])
def test_a_name_that_a_new_template_cannot_have(client, name):
    fields = {"id": name, "layout": "chat"}
    answer = client.post(reverse("template_new"), fields)
    assert answer.status_code == 422 and "id_id_error" in answer.content.decode()
    assert not PromptTemplate.objects.exists()


def test_nobody_else_may_see_how_a_system_answers(as_user, researcher, stranger):
    system = endpoint_system()
    for person in (researcher, stranger):
        assert as_user(person).get(reverse("runtime", args=[system.public_id])).status_code == 404


# --- Before the launch ----------------------------------------------------------------------------------


def test_the_estimate_says_what_it_rests_on(client):
    dataset, system = make_dataset(3), endpoint_system()
    query = {"systems": system.slug, "dataset": dataset.slug, "repeats": 2, "seed": 1, "draw_seed": 1}
    page = client.get(reverse("batch_confirm"), query, follow=True).content.decode()
    assert "by the rule below" in page and "unknown" in page
    item = dataset.items.first()
    factories.make_response(item, system, provenance={"tokens_in": 50, "tokens_out": 20})
    page = client.get(reverse("batch_confirm"), query, follow=True).content.decode()
    assert "as its latest" in page and "≈ 250" in page and "≈ 100" in page  # five are left


def test_money_is_estimated_to_the_last_digit_and_needs_a_limit(client):
    price = Price("USD", Decimal(1_000_000), Decimal(2_000_000), date(2026, 11, 1))
    system = endpoint_system(price=price, template=TEMPLATES["chat-bare"])
    dataset = factories.make_dataset()
    factories.make_item(dataset, turns=[{"role": "client", "text": "我睡不着"}], reference="听起来你很累。")
    found = estimate(system, list(dataset.items.values_list("pk", flat=True)), repeats=1).money
    # likely: four characters and five for the turn, and the seven of the reference; most: 12 bytes + 16 + 64, and 100
    assert (found.likely, found.most) == (9 + 2 * 7, 12 + 16 + 64 + 2 * 100)
    query = {
        "systems": system.slug,
        "dataset": dataset.slug,
        "repeats": 1,
        "seed": 1,
        "draw_seed": 1,
        "key": uuid.uuid4(),
    }
    url = reverse("batch_confirm")
    assert f'name="limit-{system.slug}" value="292.00"' in client.get(url, query).content.decode().replace("  ", " ")
    assert client.post(url, query).status_code == 422
    assert client.post(url, {**query, f"limit-{system.slug}": "-1"}).status_code == 422
    answer = client.post(url, {**query, f"limit-{system.slug}": "5.5"})
    assert answer.status_code == 302 and BatchPart.objects.get().limit == "5.5"


@pytest.mark.parametrize(
    "changed", [{"systems": []}, {"dataset": ""}, {"n": 99}, {"repeats": 0}, {"study": str(uuid.uuid4())}, {"seed": -1}]
)
def test_what_cannot_be_launched_is_said_on_the_form(client, changed, settings):
    system, dataset = local_system(settings.MODEL_DIRS[0] / "toy"), make_dataset(3)
    query = {"systems": system.slug, "dataset": dataset.slug, "repeats": 1, "seed": 1, "draw_seed": 1, **changed}
    answer = client.get(reverse("batch_confirm"), query, follow=True)
    assert (
        answer.status_code == 422 and 'class="error"' in answer.content.decode()
    ) or "notice bad" in answer.content.decode()


def asked(page) -> dict[str, list[str]]:
    """What the form of a page would send."""
    names = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', page.content.decode())
    return {name: [value for other, value in names if other == name] for name, _ in names if "csrf" not in name}


def test_two_tabs_a_reload_and_the_way_back_launch_once(client, settings):
    systems, dataset = [local_system(settings.MODEL_DIRS[0] / "toy") for _ in range(2)], make_dataset(3)
    url = reverse("batch_confirm")
    form = client.get(reverse("batch_new"), {"dataset": dataset.slug}, follow=True)
    answers = {"systems": [s.slug for s in systems], "dataset": dataset.slug, "study": "", "n": "2"}
    query = {**asked(form), **answers, "repeats": "1", "seed": "1", "draw_seed": "1"}
    tabs = [asked(client.get(url, query)) for _ in range(2)]
    sent = [client.post(url, tab)["Location"] for tab in (*tabs, tabs[0])]
    batch = GenerationBatch.objects.get()
    assert set(sent) == {reverse("batch_detail", args=[batch.public_id])}
    assert (batch.n_items, Job.objects.count(), batch.draw) == (2, 2, {"n": 2, "seed": 1})
    again = client.get(url, query, follow=True)  # the page that asked, loaded once more
    assert again.redirect_chain[0][0] == sent[0] and "launched already" in again.content.decode()
    # The same page with other answers, and the form opened anew, are launches of their own.
    other = client.post(url, asked(client.get(url, {**query, "repeats": "2"})))
    anew = client.get(url, {name: value for name, value in query.items() if name != "key"}, follow=True)
    assert {other["Location"], client.post(url, asked(anew))["Location"], sent[0]} == {
        reverse("batch_detail", args=[batch.public_id]) for batch in GenerationBatch.objects.all()
    }
    assert GenerationBatch.objects.count() == 3
    assert client.post(url, {name: value for name, value in tabs[0].items() if name != "key"}).status_code == 400


def test_what_was_launched_is_found_though_it_could_not_be_launched_now(client, settings, researcher):
    """The answer to the first click was lost, and the study has been opened since."""
    system = local_system(settings.MODEL_DIRS[0] / "toy")
    study = factories.make_study(researcher=researcher)
    url, query = reverse("batch_confirm"), {"study": study.public_id, "repeats": 1, "seed": 1, "draw_seed": 1}
    tab = asked(client.get(url, {**query, "systems": system.slug}, follow=True))
    first = client.post(url, tab)["Location"]
    factories.open_for_rating(study, by=researcher)
    assert client.post(url, tab)["Location"] == first


def test_the_slower_of_two_comes_to_what_the_faster_one_launched(client, settings, monkeypatch):
    """It has looked before there was a batch, and finds it when it stores its own."""
    system, dataset = local_system(settings.MODEL_DIRS[0] / "toy"), make_dataset(3)
    query = {"systems": system.slug, "dataset": dataset.slug, "repeats": 1, "seed": 1, "draw_seed": 1}
    tab = asked(client.get(reverse("batch_confirm"), query, follow=True))
    first = client.post(reverse("batch_confirm"), tab)["Location"]
    monkeypatch.setattr(once, "_made_before", lambda *_: None)
    assert client.post(reverse("batch_confirm"), tab)["Location"] == first
    assert GenerationBatch.objects.count() == Job.objects.count() == 1


@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite lets one writer in at a time")
@pytest.mark.django_db(transaction=True)
def test_of_two_that_launch_at_once_both_come_to_one_batch(client, settings):
    system, dataset = local_system(settings.MODEL_DIRS[0] / "toy"), make_dataset(3)
    url, query = reverse("batch_confirm"), {"systems": system.slug, "dataset": dataset.slug}
    query |= {"repeats": 1, "seed": 1, "draw_seed": 1}
    for n in (1, 2, 3):
        tab = asked(client.get(url, query, follow=True))
        answers = at_once(4, lambda tab=tab: client.post(url, tab))
        assert GenerationBatch.objects.count() == Job.objects.count() == n
        assert {answer["Location"] for answer in answers} == {
            reverse("batch_detail", args=[GenerationBatch.objects.latest("created_at").public_id])
        }


def test_a_sample_is_fixed_at_launch_and_the_same_for_the_same_seed(settings):
    system, dataset = local_system(settings.MODEL_DIRS[0] / "toy"), make_dataset(20)
    one, two, other = (
        set(
            launch_batch(Launch([system], Questions(dataset=dataset, n=5, draw_seed=seed)), by=None).items.values_list(
                "key", flat=True
            )
        )
        for seed in (1, 1, 2)
    )
    assert one == two != other and len(one) == 5


def test_the_queue_is_that_of_the_device(settings):
    folder = settings.MODEL_DIRS[0] / "toy"
    dataset = make_dataset(1)
    for device, queue in (("cpu", "default"), ("cuda", "gpu.0")):
        batch = launch(local_system(folder, device=device), dataset=dataset)
        assert batch.parts.get().job.queue == queue


# --- A study --------------------------------------------------------------------------------------------


def test_the_items_of_a_draft_are_answered_and_both_pages_lead_to_each_other(client, researcher, settings):
    study = factories.make_study(researcher=researcher, contact="c", retention="r")
    system = study.arms.first().system
    settings_ = LocalSettings(weights=str(settings.MODEL_DIRS[0] / "toy"))
    set_runtime(system=system, settings=settings_, by=None)
    item = factories.make_item(study.study_items.first().item.dataset)
    StudyItem.objects.create(study=study, item=item, number=99)
    page = client.get(reverse("study_setup", args=[study.public_id])).content.decode()
    assert f"{reverse('batch_new')}?study={study.public_id}" in page and f"systems={system.slug}" in page
    batch = launch_batch(Launch([system], Questions(study=study)), by=None)
    assert batch.n_items == 5
    url = reverse("batch_detail", args=[batch.public_id])
    page = client.get(url).content.decode()
    assert reverse("study_detail", args=[study.public_id]) in page and "4 of 5 responses are there" in page
    assert "can be opened" not in page
    for arm in study.arms.select_related("system"):
        factories.make_response(item, arm.system)
    assert "can be opened" in client.get(url).content.decode()


def test_an_opened_study_is_not_answered_any_more(open_study, settings):
    system = open_study.arms.first().system
    set_runtime(system=system, settings=LocalSettings(weights=str(settings.MODEL_DIRS[0] / "toy")), by=None)
    with pytest.raises(BatchRefused, match="opened"):
        launch_batch(Launch([system], Questions(study=open_study)), by=None)
    assert not GenerationBatch.objects.exists()


# --- While it runs --------------------------------------------------------------------------------------


@pytest.fixture
def batch(settings):
    return launch(local_system(settings.MODEL_DIRS[0] / "toy"), dataset=make_dataset(3))


def press(client, name: str, batch: GenerationBatch, **body) -> str:
    answer = client.post(reverse(f"batch_{name}", args=[batch.public_id]), body, follow=True)
    assert answer.status_code == 200
    return answer.content.decode()


def test_pause_go_on_cancel(client, batch):
    url = reverse("batch_detail", args=[batch.public_id])
    page = client.get(url).content.decode()
    assert "hx-get" in page and 'id="pause"' in page and 'id="resume"' not in page
    page = press(client, "pause", batch)
    assert "Paused" in page and 'id="resume"' in page and "hx-get" not in page
    assert Job.objects.get().state == "cancelled"
    press(client, "resume", batch)
    assert Job.objects.get().state == "queued"  # the same job: nobody does the work twice
    page = press(client, "cancel", batch)
    assert "Cancelled" in page and 'id="resume"' not in page
    assert "Launch a new one" in press(client, "resume", batch)
    assert "cancelled already" in press(client, "pause", batch)


def test_what_is_still_stopping_is_not_started_again(client, batch):
    job = batch.parts.get().job
    ledger.claim(job.pk, worker="w")
    assert "Stopping" in press(client, "pause", batch)
    assert "still stopping" in press(client, "resume", batch)


def test_failures_are_counted_explained_and_paged(client, batch):
    part, item = batch.parts.get(), batch.items.first()
    rows = [
        GenerationFailure(part=part, item=item, repeat=number, code="context_too_long", message="<b>4096 tokens</b>")
        for number in range(60)
    ]
    GenerationFailure.objects.bulk_create(rows)
    url = reverse("batch_detail", args=[batch.public_id])
    page = client.get(url).content.decode()
    assert "60 × The newest turn alone" in page and "&lt;b&gt;4096" in page and "?page=2" in page
    assert page.count("<code>context_too_long</code>") == 51
    assert client.get(url, {"page": 2}).content.decode().count("<code>context_too_long</code>") == 11
    assert client.get(url, {"page": "nonsense"}).status_code == 200


def test_only_what_failed_is_tried_again(client, settings):
    folder = settings.MODEL_DIRS[0] / "toy"
    batch = launch(local_system(folder), local_system(folder), dataset=make_dataset(2))
    broken, part = batch.parts.order_by("pk")
    ledger.fail(ledger.claim(broken.job_id, worker="w"), error=ValueError("no such folder"), is_final=True)
    ledger.finish(ledger.claim(part.job_id, worker="w"), result={})
    GenerationFailure.objects.create(part=part, item=batch.items.first(), code="context_too_long", message="long")
    assert "1 item is tried again." in press(client, "retry", batch)
    broken.refresh_from_db()
    part.refresh_from_db()
    assert (broken.job.state, part.job.state) == ("failed", "queued")
    press(client, "resume", batch)
    assert {one.job.state for one in batch.parts.select_related("job")} == {"queued"}


def test_responses_that_name_a_system_or_end_at_the_limit_are_counted(client, batch):
    part = batch.parts.get()
    for item, hits in zip(batch.items.all(), ([{"matched": "SoulChat"}], []), strict=False):
        factories.make_response(item, part.system, disclosures=hits, provenance={"finish_reason": "length"})
    page = client.get(reverse("batch_detail", args=[batch.public_id])).content.decode()
    row = page.partition(part.system.name)[2].partition("</tr>")[0]
    assert "2 / 3" in row and '<td class="num">1</td><td class="num">2</td>' in row


def test_the_pages_speak_chinese(client, batch):
    client.cookies["django_language"] = "zh-hans"
    assert "已有 0 / 3 条回复。" in client.get(reverse("batch_detail", args=[batch.public_id])).content.decode()


# --- The command ----------------------------------------------------------------------------------------


def test_the_command_estimates_and_launches(settings, capsys):
    system, dataset = local_system(settings.MODEL_DIRS[0] / "toy"), make_dataset(3)
    arguments = ["generate_batch", "--systems", system.slug, "--dataset", dataset.slug, "--sample", "2"]
    call_command(*arguments, "--estimate")
    assert "2 to be made" in capsys.readouterr().out and not GenerationBatch.objects.exists()
    call_command(*arguments)
    batch = GenerationBatch.objects.get()
    assert str(batch.public_id) in capsys.readouterr().out and batch.n_items == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--systems", "nobody", "--dataset", "d"], "no system nobody"),
        (["--systems", "plain", "--dataset", "d"], "has no model that answers"),
        (["--systems", "toy", "--dataset", "elsewhere"], "no dataset elsewhere"),
        (["--systems", "toy", "--dataset", "d", "--sample", "9"], "only 1"),
        (["--systems", "priced", "--dataset", "d"], "limit"),
        (["--systems", "toy", "--study", "6f1c"], "invalid UUID"),
        (["--systems", "toy", "--study", "5a6e0e9e-0000-4000-8000-000000000000"], "There is no study"),
    ],
)
def test_the_command_says_what_is_wrong(settings, arguments, said):
    factories.make_system("plain")
    local_system(settings.MODEL_DIRS[0] / "toy", "toy")
    factories.make_item(factories.make_dataset("d"))
    priced = factories.make_system("priced")
    value = EndpointSettings(
        base_url="https://api.example.org/v1",
        model="m",
        sampling=Sampling(max_new_tokens=9),
        price=Price("USD", Decimal(1), Decimal(1), date(2026, 11, 1)),
    )
    set_runtime(system=priced, settings=value, by=None)
    with pytest.raises(CommandError, match=said):
        call_command("generate_batch", *arguments)
    assert not GenerationBatch.objects.exists()


def test_the_speed_of_earlier_jobs_is_the_guess_for_the_next_and_loading_is_counted_once(batch):
    part = batch.parts.get()
    ids = list(batch.items.values_list("pk", flat=True))
    assert (estimate(part.system, ids, repeats=1).seconds, estimate(part.system, ids, repeats=1).n_timed) == (None, 0)
    claim = ledger.claim(part.job_id, worker="w")
    ledger.heartbeat(claim, n_done=5, counts_anew=True)  # five were there before
    ledger.heartbeat(claim, n_done=15)
    ledger.request_cancel(part.job_id)
    ledger.cancel(claim)  # what it has done was timed, though it was stopped
    now = timezone.now()
    Job.objects.update(
        started_at=now - timedelta(seconds=60), counted_since=now - timedelta(seconds=20), finished_at=now
    )
    found = estimate(part.system, ids, repeats=2)
    assert found.n_timed == 10
    assert found.seconds == pytest.approx(40 + 6 * 2)  # loading, then six responses at two seconds each


def test_a_price_keeps_its_date_until_it_is_changed(client):
    price = Price("USD", Decimal(1), Decimal(2), date(2026, 1, 1))
    system = endpoint_system(price=price)
    url = reverse("runtime", args=[system.public_id]) + "?kind=endpoint"
    fields = {**ENDPOINT, "currency": "USD", "input_per_million": "1", "output_per_million": "2"}
    client.post(url, fields)
    assert Runtime.objects.get().value.price.since == date(2026, 1, 1)
    client.post(url, {**fields, "output_per_million": "3"})
    assert Runtime.objects.get().value.price.since == timezone.localdate()


def test_settings_survive_the_database():
    value = EndpointSettings(
        base_url="https://api.example.org/v1", model="m", sampling=Sampling(stop=("a",), extra={"top_k": 3}, seed=5)
    )
    again = EndpointSettings.from_json(json.loads(json.dumps(value.to_json())))
    assert again == value and again.digest == value.digest
    assert value.endpoint(repeat=2).sampling.seed == 7
    local = LocalSettings(weights="w", template=TEMPLATES["soulchat"], batch_rows=4)
    assert LocalSettings.from_json(json.loads(json.dumps(local.to_json()))) == local

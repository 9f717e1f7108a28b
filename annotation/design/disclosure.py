"""Finds what gives a system away in its own words: names, "as an AI", special tokens, house phrases.

A researcher reviews every hit, so a rule is here only if ordinary counselling does not trip over it: 清华 alone
is a university that clients long for, 豆包 alone is breakfast. Every gap in a pattern is bounded, so the time grows
with the length of the text and not faster.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from annotation.design.blinding import CONTROL_MARK

Kind = Literal["self_identification", "vendor_or_model_name", "ai_statement", "special_token", "house_phrase"]


@dataclass(frozen=True)
class Disclosure:
    """One place in a text: characters start to end (exclusive) of the original, and what they say there."""

    start: int
    end: int
    kind: Kind
    matched: str


# All patterns below see folded text: NFKC per character, lower case, nothing invisible, every blank but a line
# break one " ".

# Names spelled in Latin letters: no Latin letter may touch them, so "llama" is not found in "llamado".
_LATIN_NAMES = (
    r"open ?ai|chat[ -]?gpt|gpt[ -]?[1-5][\w.\-]{0,12}|gpt|instruct[ -]?gpt|text-davinci-\d{3}"
    r"|chat[ -]?glm|glm-?\d[\w.\-]{0,8}|zhipu(?: ?ai)?|code[ -]?geex"
    r"|soul-?chat|me-?chat|mind-?chat|emo ?-?llm|psy-?chat|smile-?chat|cpsycoun[a-z]{0,3}|psycho-?llm"
    r"|spark-?desk|iflytek|ernie(?: ?bot|-\d[\w.\-]{0,8})|qwen|qwq-\d{1,3}b|tongyi(?: ?qianwen)?"
    r"|deep-?seek|anthropic|claude(?! (?:monet|debussy))|llama|code ?llama|alpaca-\d{1,3}b|stanford alpaca|vicuna"
    r"|baichuan|intern-?lm|intern-?vl|chinese-?llama|bloomz|bloom-\d{1,3}b|falcon-\d{1,3}b|mistral(?: ?ai)?|mixtral"
    r"|yi-\d{1,3}b|minimax|hunyuan|skywork|xverse|moonshot ?ai|kimi (?:chat|ai|k\d)|fudan moss|moss-moon"
    r"|gemini[ -](?:pro|ultra|flash|nano|\d[\w.\-]{0,6})|google (?:gemini|bard)|gemma-?\d|phi-\d|grok-?\d"
    r"|hugging ?face|bing chat|microsoft copilot|github copilot|character\.ai"
)
# A size or version may follow: chatglm2-6b, qwen 2.5, llama 3.
_VERSION = r"(?:[ -]?v?\d{1,3}(?:\.\d{1,3}){0,2}b?(?:-(?:\d{1,3}b|chat|int\d|instruct)){0,3})?"
# Chinese names that mean nothing else, or that a following word makes unmistakable.
_CHINESE_NAMES = (
    r"智谱(?:清言|华章|ai)?|清言(?:ai|助手|大模型)|文心一言|文心大模型|通义(?:千问|大模型|实验室)|千问大模型"
    r"|(?:科大)?讯飞(?:星火)?(?:认知)?(?:大模型)?|星火(?:认知|大模型)|深度求索|月之暗面|百川(?:智能|大模型)"
    r"|书生[·.・ ]?浦语|浦语大模型|零一万物|混元大模型|腾讯混元|盘古大模型|天工大模型|昆仑天工|商汤日日新"
    r"|豆包(?:大模型|ai|助手)|必应聊天|复旦moss|元象大模型|阶跃星辰|谷歌(?:gemini|bard)"
)
# 灵心 is SoulChat's name, but also stands in 生灵心 and 灵心慧性: only beside 模型 or set off by itself.
_SOULCHAT = (
    r"灵心(?=(?:健康)?(?:大模型|模型|助手|机器人)|[ (「]{0,2}soulchat)|(?<![\u4e00-\u9fff])灵心(?![\u4e00-\u9fff])"
)
# A university or a large company counts only as the maker: 清华大学KEG, 由百度开发.
_MAKER = (
    r"清华(?:大学)?[ 的]?(?:keg|知识工程|数据挖掘|计算机系.{0,8}(?:开发|训练|研发)|和智谱|与智谱|智谱|技术团队)"
    r"|由(?:清华|复旦|华南理工|北大|北京大学|百度|阿里|腾讯|字节|华为|谷歌|google|微软|microsoft|meta)"
    r"[^。!?\n]{0,20}?(?:开发|训练|研发|推出|打造|创建|研制)"
)
_NAME = (
    rf"(?<![a-z])(?:{_LATIN_NAMES})(?![a-z])(?:{_VERSION})(?![a-z])"
    rf"|{_CHINESE_NAMES}|{_SOULCHAT}|{_MAKER}"
)

_AI = (
    r"(?:人工智能|ai|智能体|(?:大型?|大规模)?语言模型|大模型|聊天机器人|机器人|虚拟(?:助手|助理|咨询师|人)"
    r"|智能(?:助手|助理|客服|咨询师)|(?:对话|计算机|电脑)程序|算法模型)(?![a-z])"
)
# … but a student, a worker, a field, a tool of that name is none.
_NO_PERSON = (
    r"(?!(?:技术|相关|领域|行业|方向|这个|这)?的?"
    r"(?:专业|行业|领域|方向|工程|公司|学院|研究|从业|开发者|爱好|产品经理|老师|博士|硕士|学生|时代|创业))"
)
# Words between 我是 and the claim; no sentence end, no negation, no "you".
_GAP = r"[^,。!?;:\n不没你您]{0,24}?"

_ENGLISH_AI = (
    r"(?:a\.?i\.?|artificial intelligence|(?:large |trained )?language model|chat ?bot|llm|robot"
    r"|(?:virtual|digital) (?:assistant|counsell?or|therapist)|(?:computer|machine learning) (?:program|model))"
    r"(?![a-z])(?! (?:researcher|engineer|student|developer|scientist|professional|specialist|expert|professor|startup"
    r"|company|course|teacher|consultant|operator|shop))"
)
# An article and up to two adjectives before the claim: "just a large"; "a fan of AI" is no claim.
_ENGLISH_GAP = (
    r"(?: just| only| actually| really)?(?: an?| the| your)"
    r"(?: (?!(?:of|to|with|by|about|in|for|on|who|that|and) )[a-z\-]{2,14}){0,2}?"
)
_I_AM = r"(?<![a-z])(?:i am|i['’]m|my name is)"

_RULES: tuple[tuple[Kind, str], ...] = (
    # Control tokens that normalisation did not see, for instance in full-width letters.
    ("special_token", CONTROL_MARK),
    # 我是一个人工智能助手, 我只是由许多文字训练的大模型.
    ("self_identification", rf"我(?:只|其实|就)?是{_GAP}{_AI}{_NO_PERSON}(?:助手|助理|模型|程序)?"),
    # 我是 or 我叫, and a name we know; names that are also words must end there.
    (
        "self_identification",
        rf"(?:我(?:是|叫|名叫|的名字是|的名字叫)|叫我|这里是) ?[\"'“「《]?"
        rf"(?:{_NAME}|(?:灵心|豆包|文小言|小冰|kimi|moss)(?=[,。!?~\n\"'”」》 ]|$))",
    ),
    # 我是由某某公司开发的: nobody but a program says so.
    (
        "self_identification",
        r"我是?由[^,。!?;\n]{1,24}?(?:开发|训练|研发|创造|设计|打造|构建)(?:的|而成|出来)",
    ),
    # I am an AI, I'm just a large language model, my name is ChatGPT, I was trained by.
    ("self_identification", rf"{_I_AM}{_ENGLISH_GAP} {_ENGLISH_AI}(?: language model| assistant| model)?"),
    ("self_identification", rf"(?:{_I_AM}|call me) (?:{_NAME})"),
    (
        "self_identification",
        r"(?<![a-z])i (?:was|am|have been) (?:trained|developed|created|programmed) (?:by|to assist|to provide) ",
    ),
    # 作为一个人工智能(语言模型), 身为AI; As an AI language model.
    (
        "ai_statement",
        rf"(?:作为|身为)(?:[一这]?[个名位款种])?[^,。!?;:\n你您]{{0,8}}?{_AI}{_NO_PERSON}(?:助手|助理|语言模型|模型|程序)?",
    ),
    (
        "ai_statement",
        rf"(?<![a-z])(?:as|being){_ENGLISH_GAP} {_ENGLISH_AI}(?: language model| assistant| model)?",
    ),
    # 我的训练数据, 我没有真实的情感和意识; my training data, I don't have feelings or emotions.
    ("ai_statement", r"我的(?:训练数据|训练语料|知识库|知识截止|模型参数)"),
    (
        "ai_statement",
        r"我(?:并)?(?:没有|不具备|不具有)(?:真实的|真正的|人类的|自己的|像人类一样的)?(?:情感|感情|意识|身体)"
        r"[和或与、](?:情感|感情|意识|身体|个人经历|主观体验|自我意识)",
    ),
    (
        "ai_statement",
        r"(?<![a-z])(?:my (?:training data|knowledge cut-?off|programming)"
        r"|i (?:do not|don['’]t) have (?:personal )?(?:feelings|emotions|consciousness)"
        r" or (?:feelings|emotions|consciousness|experiences))(?![a-z])",
    ),
    # Names of vendors and models, wherever they stand.
    ("vendor_or_model_name", _NAME),
    # Stock sentences of chat products.
    ("house_phrase", r"欢迎(?:您|你)?(?:随时)?(?:向我提问|问我任何问题)"),
    (
        "house_phrase",
        r"(?:抱歉|对不起),?我(?:无法|不能)(?:回答|生成|提供)(?:这个|这类|您的|你的|相关|该)(?:问题|内容|信息|请求)",
    ),
    (
        "house_phrase",
        r"如果[您你](?:还)?有(?:任何)?其他问题,?(?:请)?随时(?:告诉我|问我|向我提问|提问)",
    ),
    (
        "house_phrase",
        r"(?<![a-z])(?:i['’]m|i am) sorry,? but i (?:cannot|can['’]t|am unable to)"
        r" (?:assist|help) (?:you )?with (?:that|this)",
    ),
    (
        "house_phrase",
        r"(?<![a-z])(?:feel free to ask me any(?:thing| questions?)"
        r"|is there anything else i can (?:help|assist)(?: you)? with)(?![a-z])",
    ),
)
_COMPILED = tuple((kind, re.compile(pattern, re.IGNORECASE)) for kind, pattern in _RULES)


def scan(text: str, extra_names: Iterable[str] = ()) -> tuple[Disclosure, ...]:
    """The places where a text gives its system away, by position; none lies inside another.

    extra_names: names of the study's own systems, found like names of vendors; shorter than two characters
    they would be found everywhere and are passed over.

    Upper and lower case, full-width letters and invisible characters make no difference; start and end count
    characters of the text as given.
    """
    folded, origin = _fold(text)
    found: list[tuple[int, int, Kind]] = []
    for kind, pattern in _rules(extra_names):
        found += [(match.start(), match.end(), kind) for match in pattern.finditer(folded)]
    disclosures: list[Disclosure] = []
    reached = 0  # of hits that start together the widest comes first and swallows the others
    for start, end, kind in sorted(found, key=lambda hit: (hit[0], -hit[1])):
        if end <= reached:
            continue
        reached = end
        first, last = origin[start], origin[end - 1] + 1
        disclosures.append(Disclosure(first, last, kind, text[first:last]))
    return tuple(disclosures)


def mask(text: str, disclosures: Iterable[Disclosure], placeholder: str = "［…］") -> str:
    """The text with a neutral placeholder in every place found; places that touch or overlap share one."""
    parts: list[str] = []
    kept_until = 0
    for place in sorted(disclosures, key=lambda place: place.start):
        if place.start > kept_until or not parts:
            parts += [text[kept_until : place.start], placeholder]
        kept_until = max(kept_until, place.end)
    return "".join([*parts, text[kept_until:]])


def _rules(extra_names: Iterable[str]) -> tuple[tuple[Kind, re.Pattern[str]], ...]:
    names = sorted({_fold(name)[0].strip() for name in extra_names}, key=lambda name: (-len(name), name))
    escaped = [_bounded(name) for name in names if len(name) >= 2]
    if not escaped:
        return _COMPILED
    return (*_COMPILED, ("vendor_or_model_name", re.compile("|".join(escaped))))


def _bounded(name: str) -> str:
    """A pattern of the name that no Latin letter may touch at an end that is one itself."""
    before = "(?<![a-z])" if "a" <= name[0] <= "z" else ""
    after = "(?![a-z])" if "a" <= name[-1] <= "z" else ""
    return before + re.escape(name) + after


def _fold(text: str) -> tuple[str, list[int]]:
    """The text as the patterns see it, and for each of its characters the index of the original one."""
    folds: dict[str, str] = {}
    folded: list[str] = []
    origin: list[int] = []
    for index, character in enumerate(text):
        if character not in folds:
            folds[character] = _fold_character(character)
        folded.append(folds[character])
        origin += [index] * len(folds[character])
    return "".join(folded), origin


def _fold_character(character: str) -> str:
    if character == "\n":
        return "\n"
    if unicodedata.category(character) == "Cf":  # shows nothing, but would split a name unseen
        return ""
    plain = unicodedata.normalize("NFKC", character).lower()
    return "".join(" " if c.isspace() else c for c in plain)

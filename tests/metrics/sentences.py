"""Invented counselling replies in every shape that has tripped a segmenter or a metric. Nobody said any of this."""

import numpy as np

PLAIN = (
    "听起来你最近承受了很大的压力，能具体说说是什么让你感到焦虑吗？",
    "我能理解你的感受，失去亲人确实是一件非常痛苦的事情。",
    "你已经做得很好了，请不要太责怪自己。",
    "也许可以先从每天散步十分钟开始，慢慢调整自己的作息。",
    "当你和父母争吵的时候，你心里在想些什么呢？",
    "如果这种情绪持续了两周以上，建议你去医院的心理科看一看。",
    "我们一起来想想，有没有什么事情能让你稍微放松一点。",
    "你愿意和我聊聊那天晚上发生的事情吗？",
    "工作上的不顺利让你怀疑自己的能力，这种感觉一定很不好受。",
    "很多人在分手之后都会经历一段低落的时期，这很正常。",
    "试着把你的担心写下来，然后看看哪些是你可以控制的。",
    "谢谢你愿意相信我，把这些话告诉我。",
    "孩子不愿意上学，背后往往有他自己的原因。",
    "你的努力没有白费，只是暂时还没有看到结果。",
    "深呼吸几次，感受空气慢慢进入你的身体。",
    "你觉得自己没有价值，是从什么时候开始的呢？",
    "听你这样说，我也替你感到难过。",
    "人际关系需要时间去经营，不必强求所有人都喜欢你。",
    "晚上睡不着的时候，可以试试听一些轻柔的音乐。",
    "如果你有伤害自己的想法，请马上联系身边的人或者拨打求助热线。",
    "王晓峰老师说过，情绪没有好坏之分。",
    "李小璐和她的室友因为打扫卫生的事情闹得很僵。",
)
ODD = (
    "",
    " ",
    "\n\n",
    "　",
    "好",
    "嗯。",
    "好的",
    "是的。",
    "你好吗",
    "。",
    "……",
    "？！",
    "I hear you, and I am sorry that you had to go through this.",
    "It is 3.5 hours, e.g. from 20-30 to a SCL-90 score of 1,200.",
    "我最近在用APP打卡，感觉OK，但是deadline太多了。",
    "他的SCL-90得分是2.5，PHQ-9是12分，属于20-30%的人群。",
    "C++和C#我都学过，AT&T的offer也拿到了，可是我不开心_。",
    "邮箱是test.user+tag@example.com，网址https://example.com/a_b?c=1&d=2#e。",
    "小王.李和Dr.Wang在9.30-10.15见面，100%准时。",
    "ＡＢＣ１２３，全角的文字（和括号）！",
    "ABC123,全角的文字(和括号)!",
    "真的吗?真的.好吧,算了!",
    "我很难过😢😢，但是也有希望🌱。👩‍👩‍👧",
    "😀",
    "😢😢😢",
    "你可以这样做：\n1. 先深呼吸。\n2. 再写下你的想法。\n3. 最后和朋友聊聊。",
    "你可以这样做：1. 先深呼吸。2. 再写下你的想法。3. 最后和朋友聊聊。",
    "你可以这样做：\n\n1、先深呼吸；\n\n2、再写下你的想法；\n\n3、最后和朋友聊聊。\n",
    "我明白了。\n谢谢你。",
    "我明白了。谢谢你。",
    "我明白了。\r\n谢谢你。\r\n\r\n再见。",
    "我明白了！\n \n　谢谢你？\n",
    "\n我在听。",
    "嗯......让我想想.......也许吧..........好",
    "嗯……让我想想…………也许吧",
    "他说：“我没事。”\n可是他哭了。",
    "“你好吗？”“我很好！”——她笑了笑。",
    "『不要紧』，【提示】《活着》、〈注〉",
    "你 好 吗  我   很好",
    "你\u200b好\u00a0吗\u2028我很\x85好\x1c呢\x0b啊\x0c吧",
    "繁體中文也可以，聽起來你很難過。",
    "かなとカナと한국어 mixed with 中文",
    "㐀㐁䶵鿖鿿\uf900\ufa0e𠀀𠀁𪛖生僻字",
    "〇一二三，①②③，Ⅳ，㎡，½，²，٣",
    "e\u0301cole café naïve ß ÿ",
    "啊啊啊啊啊啊啊啊",
    "哈哈哈哈哈哈，真的真的真的太好了太好了",
    "一\t二\t三",
    "a",
    "a b",
    "1,000.5-3 -5 5- .5 5. ,a a, -",
    "{json: [1, 2], 'k': \"v\"} <b>&amp;</b> ~`|^",
)
SENTENCES = PLAIN + ODD
PAIRS = tuple((h, SENTENCES[(7 * i + 3) % len(SENTENCES)]) for i, h in enumerate(SENTENCES))
PAIRS += tuple((s, s) for s in SENTENCES)
PAIRS += tuple(zip(ODD[1:], ODD[:-1], strict=True))
PAIRS += tuple((a + b, b + c) for a, b, c in zip(PLAIN, PLAIN[1:], PLAIN[2:], strict=False))
PAIRS += tuple((a + "\n" + b, c + b) for a, b, c in zip(SENTENCES, SENTENCES[5:], SENTENCES[9:], strict=False))
HYPOTHESES = tuple(h for h, _ in PAIRS)
REFERENCES = tuple(r for _, r in PAIRS)


def compose(n: int, *, seed: int, odd_share: float = 0.3, chars: tuple[int, int] = (40, 200)) -> list[str]:
    """n texts of whole and cut sentences, chars[0] to chars[1] code points long; some are numbered lists.

    odd_share: of the texts, those that have odd sentences among the plain ones.
    """
    rng = np.random.default_rng(seed)
    odd = [sentence for sentence in ODD if len(sentence.strip()) > 3]
    texts = []
    for _ in range(n):
        length = int(rng.integers(*chars))
        pool = [*PLAIN, *odd] if rng.random() < odd_share else PLAIN
        is_list = rng.random() < 0.15
        text, number = "", 0
        while len(text) < length:
            number += 1
            sentence = pool[rng.integers(len(pool))]
            text += f"{number}、{sentence}\n" if is_list else sentence[rng.integers(0, 6) :]
        texts.append(text[:length])
    return texts

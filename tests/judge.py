# ruff: noqa: RUF001 - letters that look alike are the point of these texts.
"""The slow judge: HF `tokenizers` over the shipped ranks, and texts that are hard to tokenize.

The judge reads a whole text at once and shares nothing with our code but the vocabulary file.
"""

import functools
import itertools
import random
import re
import unicodedata

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from proxy import vocabulary

# As it stands in Qwen3's tokenizer.json.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_letters() -> dict[int, str]:
    """GPT-2's printable stand-in for each byte."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(0x100 + n) for n, byte in enumerate(others)}


def parents(entry: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The last merge of an entry: what its bytes come to under the lower ranks."""
    parts = [bytes([byte]) for byte in entry]
    while len(parts) > 2:
        pairs = [ranks.get(a + b, len(ranks)) for a, b in itertools.pairwise(parts)]
        at = pairs.index(min(pairs))
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts[0], parts[1]


@functools.cache
def judge() -> Tokenizer:
    ranks = vocabulary.load().ranks()
    letters = byte_letters()
    word = {entry: "".join(letters[byte] for byte in entry) for entry in ranks}
    merges = [parents(entry, ranks) for entry in ranks if len(entry) > 1]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={word[entry]: rank for entry, rank in ranks.items()},
            merges=[(word[left], word[right]) for left, right in merges],
        )
    )
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(PATTERN), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def judged_ids(text: str) -> list[int]:
    return list(judge().encode(text).ids)


# Written for these tests: everyday sentences in many scripts, and code.
SENTENCES: tuple[str, ...] = (
    "The river rose overnight, and by morning nobody could find the old wooden bridge.",
    "I'd say it's fine; they'll come, we've seen what you're doing, and I'm sure he can't.",
    "今天的天气很好，我们打算去公园散步，然后在湖边吃午饭。",
    "昨日は雨が降っていたので、家で本を読んだり音楽を聴いたりして過ごしました。",
    "カタカナとﾊﾝｶｸ、ガギグゲゴの濁点。",
    "오늘은 날씨가 좋아서 친구와 함께 한강에서 자전거를 탔습니다.",
    "วันนี้อากาศดีมาก เราจึงไปเดินเล่นที่สวนสาธารณะกับเพื่อน ๆ",
    "Сегодня вечером мы пойдём в театр, а потом поужинаем у друзей.",
    "Η θάλασσα ήταν ήρεμη και ο ήλιος έδυε πίσω από τα βουνά.",
    "ذهبنا إلى السوق في الصباح واشترينا خبزًا وفواكه طازجة.",
    "הלכנו לטייל בהרים וחזרנו הביתה לפני שהחשיך.",
    "आज सुबह बारिश हुई, इसलिए हम देर से स्कूल पहुँचे।",
    "আজ সকালে আমরা নদীর ধারে হাঁটতে গিয়েছিলাম।",
    "இன்று காலை மழை பெய்தது, குழந்தைகள் மகிழ்ந்தனர்.",
    "ఈ రోజు ఉదయం మేము తోటలో పూలు కోసాము.",
    "ಇಂದು ಬೆಳಿಗ್ಗೆ ನಾವು ಊರಿಗೆ ಹೋದೆವು.",
    "ഇന്ന് രാവിലെ ഞങ്ങൾ കടൽത്തീരത്ത് നടന്നു.",
    "આજે સવારે અમે બજારમાં ગયા.",
    "ਅੱਜ ਸਵੇਰੇ ਅਸੀਂ ਖੇਤ ਵਿੱਚ ਕੰਮ ਕੀਤਾ।",
    "අද උදේ අපි වත්තේ මල් සිටුවෙමු.",
    "ဒီနေ့ မနက် ကျွန်တော်တို့ ဈေးကို သွားခဲ့တယ်။",
    "ថ្ងៃនេះ យើងទៅផ្សារ ដើម្បីទិញបន្លែ។",
    "ມື້ນີ້ພວກເຮົາໄປຕະຫຼາດ.",
    "དེ་རིང་གནམ་གཤིས་ཡག་པོ་འདུག",
    "ዛሬ ጠዋት ወደ ገበያ ሄድን።",
    "დღეს დილით პარკში ვისეირნეთ.",
    "Այսօր առավոտյան գնացինք շուկա։",
    "Өнөөдөр өглөө бид зах руу явсан.",
    "Tối qua trời mưa rất to, nên chúng tôi ở nhà và nấu phở.",
    "Dün akşam İstanbul'da güzel bir yemek yedik; ışık çok azdı.",
    "Größe, Fußweg, Übermut und Äpfel: das reicht für heute.",
    "L'été dernier, nous avons vu l'océan ; ça m'a beaucoup plu.",
    "El niño comió piña mañana y tarde, ¿verdad? ¡Sí!",
    "Zażółć gęślą jaźń, potem idź spać.",
    "Příliš mnoho žlutých koní běželo dolů údolím.",
    "ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ ᎤᏬᎯᏳᎯ",
    "ᚠᚢᚦᚨᚱᚲ ᛏᛁᛚ ᚨᛚᛚᛖ",
    "𐌰𐌽𐌰 𐌼𐌰𐌽𐌽𐌰, 𝒳𝓎𝓏 𝟘𝟙𝟚, 𠮷野家",
    "ދުނިޔެ ރީތި ދުވަހެއް",
    "ⴰⵣⵓⵍ ⴼⵍⵍⴰⵡⵏ",
    "def area(r: float) -> float:\n    return 3.14159 * r ** 2  # pi\n\n\nprint(area(2))\n",
    "for (let i = 0; i < 10; i++) {\r\n\tconsole.log(`row ${i}`);\r\n}\r\n",
    '{"name": "search", "arguments": {"query": "caf\\u00e9 near me", "limit": 10}}',
    "| a | b |\n|---|---|\n| 1 | **two** |\n\n- [x] done\n- [ ] open\n",
    "<div class='x'>Tom &amp; Jerry's</div><!-- end -->",
    "SELECT * FROM t WHERE a <> 'b' AND c >= 12.50; -- note",
    "👍🏽 👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇯🇵 ❤️‍🔥 1️⃣ ©®™",
    "$E = mc^2$, ∑ᵢ xᵢ ≤ ∞, ½ + ¼ = ¾, x² ≠ √2, ⅷ №5",
)
# What breaks tokenizers: cut points, compositions, contractions, white space, look-alikes of control ids.
FRAGMENTS: tuple[str, ...] = (
    *"abst rel'dmv.,!?-0129\n\r\t <>=/",
    *("'s", "'S", "'\u017f", "'ll", "'lL", "'re", "'vE", "'t", "'d", "'m", "'r", "'v", "'l", "''", "’s", "ŉ", "ﬆ"),
    *("\r\n", "\n\n", " \n", "  ", "   ", "\n ", "\t\t", "\u00a0", "\u3000", "\u2028", "\u0085", "\u200b", "\ufeff"),
    *("e\u0301", "e\u0301\u0323", "\u0301", "\u0323\u0301", "\u0344", "\u0340\u0316", "q\u0302", "A\u030a", "\u212b"),
    *("<\u0338", "=\u0338", "\u2126", "\u2329", "\uf900", "\U0002f800", "\u1e9b\u0323", "s\u0307", "ﬁ", "K", "İ"),
    *("가", "각", "\u1100", "\u1161", "\u11a8", "\u1100\u1161\u11a8", "가\u11a8", "か\u3099", "は\u309a", "\u3099"),
    *("\u09c7\u09be", "\u0bc6\u0bbe", "ก่", "ำ", "\u0e38\u0e48", "\u05e9\u05bc\u05c1", "\u064b\u0651", "\u0f71\u0f72"),
    *("👍", "🏽", "\u200d", "\ufe0f", "𝒳", "𠮷", "\U0001f1e9", "\U000e0061", "\U00011099\U000110ba", "\U00011938"),
    *("<|im_end|>", "<|im_start|>", "<think>", "</think>", "<tool_call>", "<|endoftext|>", "<|fim_prefix|>"),
    *("----------------", " " * 9, "\n" * 5, "x" * 7, "==", "//", "/*", "!!", "...", "……", "——", "\x00", "\ufffd"),
    *("٣", "५", "½", "Ⅷ", "①", "\ue000", "\U0010ffff", "\u0378", "\U0001fae8", "\u08d0", "\u0c3c"),
    *(sentence[start : start + 9] for sentence in SENTENCES for start in range(0, len(sentence) - 9, 17)),
)


def random_text(source: random.Random) -> str:
    """Up to some dozens of characters, from one to a few of the ways to make trouble."""
    while True:
        text = "".join(_stretch(source) for _ in range(source.randint(1, 4)))
        if not _FLOOD.search(text):
            return text


# More marks than this on one letter are not waited for (see proxy/normalizer.py).
_FLOOD = re.compile(f"[{''.join(filter(unicodedata.combining, map(chr, range(0x110000))))}]{{64}}")


def _stretch(source: random.Random) -> str:
    way = source.random()
    if way < 0.35:
        sentence = source.choice(SENTENCES)
        start = source.randrange(len(sentence))
        return sentence[start : start + source.randint(1, 50)]
    if way < 0.75:
        return "".join(source.choices(FRAGMENTS, k=source.randint(1, 10)))
    if way < 0.85:
        return "".join(source.choices(" \n\r\t\u3000", weights=(6, 2, 1, 1, 1), k=source.randint(1, 30)))
    if way < 0.95:
        return "".join(_any_character(source) for _ in range(source.randint(1, 12)))
    return source.choice(FRAGMENTS) * source.randint(2, 40)


def _any_character(source: random.Random) -> str:
    low, high = source.choice(((0, 0x250), (0x250, 0x1200), (0x1200, 0xD800), (0xE000, 0x10000), (0x10000, 0x110000)))
    return chr(source.randrange(low, high))


def random_cut(source: random.Random, text: str) -> list[str]:
    """The text in deltas of a few sizes; now and then an empty one."""
    most = source.choice((1, 2, 4, 8, 40))
    deltas = []
    start = 0
    while start < len(text):
        size = source.randint(0, most) if most > 1 else 1
        deltas.append(text[start : start + size])
        start += size
    return deltas

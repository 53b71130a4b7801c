# ruff: noqa: RUF001 - these are texts in other scripts.
"""Texts for the benchmarks, written for them: the kinds of answers that models stream."""

ENGLISH = """\
Growing tomatoes on a balcony is easier than most people expect, provided that you choose the right pot. \
A container of about twenty litres keeps the soil moist through a hot afternoon, while a smaller one dries out \
before you come home from work. Put a handful of gravel at the bottom, fill it with ordinary compost, and plant \
the seedling a little deeper than it stood before; it'll grow extra roots along the buried stem.

Water in the morning rather than at night, and aim for the roots instead of the leaves. Once the first flowers \
appear, a weekly feed makes a noticeable difference. If the lower leaves turn yellow, don't panic: the plant is \
usually short of nitrogen, or it's simply getting old. Curled leaves, on the other hand, often point to cold \
nights or to aphids hiding underneath.

You asked whether you should remove the side shoots. For tall varieties the answer is yes, because they'd \
otherwise put their strength into foliage; for bush types it isn't worth the trouble. By late August, pinch out \
the growing tip so that the remaining fruit has time to ripen. We've had good results with three plants in a row, \
spaced forty centimetres apart, and a basil pot in between.
"""
CHINESE = """\
想要在家里做出一碗好吃的牛肉面，最重要的是先把汤底熬好。牛骨要用冷水浸泡两个小时，中间换几次水，把血水去掉，\
然后放进锅里焯水，撇去浮沫。接着加入姜片、葱段、八角和桂皮，用小火慢慢炖三个小时以上，汤色就会变得清亮而有层次。\
很多人喜欢一开始就放盐，其实这样会让肉质变硬，等到快要出锅的时候再调味会更合适。

面条最好选择新鲜的手工面，煮的时候水要宽，火要大，煮到没有硬心就马上捞出来过一下凉水。如果家里有老人或者孩子，\
可以适当煮软一些。至于配菜，青菜和香菜能够增加清爽的口感，辣椒油则根据个人口味决定。吃不完的汤可以分成小份冷冻，\
下次使用的时候只需要重新加热，非常方便。

另外，您提到的那家店使用的是一种比较传统的方法：他们把牛肉切成大块，先用酱油和冰糖炒出颜色，再和香料一起焖煮。\
这种做法虽然花费时间，但是味道更加浓郁，也更能体现师傅的经验。
"""
JAPANESE = """\
京都を一日で回るなら、朝早く出発することをおすすめします。まず伏見稲荷大社へ行くと、八時前であれば観光客も少なく、\
鳥居の並ぶ道をゆっくり歩くことができます。その後は電車で東福寺に寄り、庭園を眺めながら静かな時間を過ごすのも良いでしょう。\
昼食は駅の近くの小さな食堂で、にしんそばや湯豆腐を試してみてください。

午後は清水寺の周辺を散策します。坂道の途中には陶器や和菓子の店が多く、おみやげを選ぶのに困ることはありません。\
ただし、夕方になると大変混雑しますので、バスではなく歩いて移動するほうが早い場合もあります。時間に余裕があれば、\
鴨川のほとりに座って、日が沈むのを待つのもいい思い出になります。

ご質問のあった交通費ですが、一日乗車券を買うと、三回以上バスに乗るだけで元が取れます。カードでも支払えますが、\
チャージ残高だけは事前に確認しておきましょう。
"""
THAI = """\
ถ้าคุณอยากเริ่มวิ่งออกกำลังกายเป็นครั้งแรก ไม่จำเป็นต้องรีบร้อน ให้เริ่มจากการเดินเร็วสลับกับการวิ่งช้า ๆ \
วันละประมาณยี่สิบนาที สัปดาห์ละสามวันก็เพียงพอแล้ว สิ่งสำคัญคือการเลือกรองเท้าที่พอดีกับเท้าและรองรับแรงกระแทกได้ดี \
เพราะรองเท้าที่ไม่เหมาะสมอาจทำให้หัวเข่าบาดเจ็บได้ง่าย

ก่อนวิ่งควรอบอุ่นร่างกายทุกครั้ง และหลังวิ่งควรยืดกล้ามเนื้ออย่างน้อยห้านาที ดื่มน้ำให้เพียงพอ \
โดยเฉพาะในวันที่อากาศร้อน หากรู้สึกเวียนศีรษะหรือเจ็บหน้าอกให้หยุดพักทันทีและปรึกษาแพทย์ \
เมื่อผ่านไปสี่สัปดาห์คุณจะสังเกตได้ว่าหายใจสะดวกขึ้นและนอนหลับได้ดีกว่าเดิม จากนั้นค่อยเพิ่มระยะทางทีละน้อย \
อย่าลืมให้ร่างกายได้พักผ่อนด้วย เพราะการพักคือส่วนหนึ่งของการฝึกซ้อม
"""
CODE = '''\
Here is a small cache that forgets the entries nobody has asked for lately:

```python
from collections import OrderedDict
from threading import Lock


class RecentCache:
    """Keeps the `size` entries that were used last."""

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"size must be positive, not {size!r}")
        self._entries: OrderedDict[str, bytes] = OrderedDict()
        self._size = size
        self._lock = Lock()

    def get(self, key: str) -> bytes | None:
        with self._lock:
            if (value := self._entries.get(key)) is not None:
                self._entries.move_to_end(key)
            return value

    def put(self, key: str, value: bytes) -> None:
        with self._lock:
            self._entries[key] = value
            self._entries.move_to_end(key)
            while len(self._entries) > self._size:
                self._entries.popitem(last=False)  # the oldest
```

And the same question in JavaScript, where a `Map` already remembers the order:

```js
const cache = new Map();
export function remember(key, value, limit = 100) {
  cache.delete(key);
  cache.set(key, value);
  if (cache.size > limit) {
    const [oldest] = cache.keys();
    cache.delete(oldest); // Map iterates in insertion order
  }
  return { ok: true, size: cache.size, "hit-rate": hits / (hits + misses) };
}
```
'''
OTHERS = """\
**Kurze Antwort:** Ja, das geht – aber prüfen Sie vorher die Größe der Öffnung (mindestens 35 × 40 cm).

1. Снимите крышку и отложите винты в сторону, чтобы не потерять их.
2. Débranchez l'appareil, puis attendez une dizaine de minutes : l'eau doit être froide.
3. 나사를 조이기 전에 고무 패킹이 제자리에 있는지 다시 한번 확인하세요.
4. تأكد من أن الأنبوب مثبت جيدًا قبل تشغيل الجهاز مرة أخرى.
5. अगर पानी अब भी टपक रहा है, तो नीचे वाला नट थोड़ा और कसें।
6. Kiểm tra lại đường ống và lau khô mọi chỗ trước khi đóng nắp.

| Teil | Preis | Lieferzeit |
|------|------:|------------|
| Dichtung | 3,90 € | 2–3 Tage |
| Schlauch | 14,50 € | sofort |

¡Listo! Si todavía tienes dudas, escríbeme 😊👍🏽 — o llama al 555-0134 (de 9:00 a 17:30 h).
祝你好运！がんばってください！
"""
TEXTS = {
    "English": ENGLISH,
    "Chinese": CHINESE,
    "Japanese": JAPANESE,
    "Thai": THAI,
    "code": CODE,
    "chat mix": "".join(
        part + "\n\n"
        for parts in zip(
            *(text.strip().split("\n\n")[:3] for text in (ENGLISH, CHINESE, JAPANESE, CODE, OTHERS)), strict=True
        )
        for part in parts
    ),
}

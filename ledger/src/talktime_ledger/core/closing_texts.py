"""The wrap-up and the goodbye in the interview's language, where the Project has left them at the schema's defaults.

The schema's defaults are English and the API server fills them in, so an object cannot tell "left out" from "written":
the default text means the default, in whatever language the interview is. Any other text is the Project's own and wins.
A language that is not here keeps English. The goodbye is short (about 5 s spoken: what is longer is faded out), says
nothing of cost, and C is computed from the text that is really spoken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from talktime_ledger.resources.project import DEFAULT_CLOSING, DEFAULT_WRAP_UP


class Spoken(NamedTuple):
    """`wrap_up`: an instruction, with {minutes}; `closing`: the sentence that is said."""

    wrap_up: str
    closing: str


ENGLISH = Spoken(DEFAULT_WRAP_UP, DEFAULT_CLOSING)

DEFAULTS: Mapping[str, Spoken] = {
    "en": ENGLISH,
    "de": Spoken(
        "Die Zeit geht zu Ende. Fasse bitte zusammen und schließe das Gespräch in den nächsten {minutes} Minuten ab.",
        "Vielen Dank für Ihre Zeit, wir haben alles besprochen. Auf Wiederhören.",
    ),
    "fr": Spoken(
        "Le temps imparti touche à sa fin. Résume et conclus la conversation dans les {minutes} prochaines minutes.",
        "Merci pour votre temps, nous avons abordé l'essentiel. Au revoir.",
    ),
    "es": Spoken(
        "El tiempo se está acabando. Resume y concluye la conversación en los próximos {minutes} minutos.",
        "Gracias por su tiempo, hemos tratado todo lo necesario. Adiós.",
    ),
    "it": Spoken(
        "Il tempo sta per finire. Riassumi e concludi la conversazione nei prossimi {minutes} minuti.",
        "Grazie per il suo tempo, abbiamo trattato tutto. Arrivederci.",
    ),
    "pt": Spoken(
        "O tempo está terminando. Resuma e conclua a conversa nos próximos {minutes} minutos.",
        "Obrigado pelo seu tempo, já falamos de tudo o que era preciso. Até logo.",
    ),
    "nl": Spoken(
        "De tijd is bijna om. Vat samen en rond het gesprek af in de komende {minutes} minuten.",
        "Bedankt voor uw tijd, we hebben alles besproken. Tot ziens.",
    ),
    "pl": Spoken(
        "Czas dobiega końca. Podsumuj i zakończ rozmowę w ciągu następnych {minutes} minut.",
        "Dziękujemy za poświęcony czas, omówiliśmy już wszystko. Do widzenia.",
    ),
    "sv": Spoken(
        "Tiden är snart slut. Sammanfatta och avsluta samtalet inom de närmaste {minutes} minuterna.",
        "Tack för din tid, vi har gått igenom allt vi behöver. Hej då.",
    ),
    "da": Spoken(
        "Tiden er ved at løbe ud. Opsummer og afslut samtalen inden for de næste {minutes} minutter.",
        "Tak for din tid, vi har talt om alt det vigtige. Farvel.",
    ),
    "tr": Spoken(
        "Süre dolmak üzere. Lütfen önümüzdeki {minutes} dakika içinde özetle ve görüşmeyi bitir.",
        "Zaman ayırdığınız için teşekkürler, her şeyi konuştuk. Hoşça kalın.",
    ),
    "ja": Spoken(
        "終了時間が近づいています。{minutes}分以内に内容をまとめて、会話を終えてください。",
        "お時間をいただき、ありがとうございました。それでは失礼いたします。",
    ),
    "zh": Spoken(
        "时间快到了。请在接下来的{minutes}分钟内总结并结束对话。",
        "感谢您抽出时间，要了解的都谈到了。再见。",
    ),
    "ko": Spoken(
        "시간이 거의 다 되었습니다. 앞으로 {minutes}분 안에 내용을 요약하고 대화를 마무리해 주세요.",
        "시간 내주셔서 감사합니다. 필요한 이야기를 모두 나눴습니다. 안녕히 계세요.",
    ),
}


def spoken_texts(language: str, wrap_up: str, closing: str) -> Spoken:
    """What is really used. `language`: a BCP 47 tag (`de`, `pt-BR`, `zh_Hans`); its first part decides."""
    own = DEFAULTS.get(language.replace("_", "-").partition("-")[0].strip().lower(), ENGLISH)
    return Spoken(
        own.wrap_up if wrap_up == DEFAULT_WRAP_UP else wrap_up,
        own.closing if closing == DEFAULT_CLOSING else closing,
    )

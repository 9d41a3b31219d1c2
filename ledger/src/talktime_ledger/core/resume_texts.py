"""The instruction for the first words after an interruption, in the interview's language.

It says nothing of cost or machines. Shorter than the default wrap-up of its language, so that it makes no worst case
larger where the Project left the wrap-up at its default. A language that is not here keeps English.
"""

from __future__ import annotations

from collections.abc import Mapping

ENGLISH = "The connection was lost for a moment. Say so in one short sentence, then repeat your last question."

RESUME: Mapping[str, str] = {
    "en": ENGLISH,
    "de": "Die Verbindung war kurz unterbrochen. Sage das in einem Satz und wiederhole deine letzte Frage.",
    "fr": "La connexion a été coupée un instant. Dis-le en une phrase et répète ta dernière question.",
    "es": "La conexión se cortó un momento. Dilo en una frase y repite tu última pregunta.",
    "it": "La connessione è caduta un attimo. Dillo in una frase e ripeti l'ultima domanda.",
    "pt": "A ligação caiu por um momento. Diz isso numa frase e repete a última pergunta.",
    "nl": "De verbinding viel even weg. Zeg dat in één zin en herhaal je laatste vraag.",
    "pl": "Połączenie na chwilę się urwało. Powiedz to w jednym zdaniu i powtórz ostatnie pytanie.",
    "sv": "Anslutningen bröts ett ögonblick. Säg det i en mening och upprepa din sista fråga.",
    "da": "Forbindelsen var afbrudt et øjeblik. Sig det i én sætning og gentag dit sidste spørgsmål.",
    "tr": "Bağlantı bir an koptu. Bunu tek cümleyle söyle ve son sorunu tekrarla.",
    "ja": "接続が一瞬切れました。一言そう伝えて、最後の質問を繰り返してください。",
    "zh": "连接刚才中断了。请用一句话说明，然后重复上一个问题。",
    "ko": "연결이 잠시 끊겼습니다. 한 문장으로 알리고 마지막 질문을 다시 해 주세요.",
}


def resume_text(language: str) -> str:
    """`language`: a BCP 47 tag (`de`, `pt-BR`, `zh_Hans`); its first part decides."""
    return RESUME.get(language.replace("_", "-").partition("-")[0].strip().lower(), ENGLISH)

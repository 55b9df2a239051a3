"""What `seedfold new-task` writes: a few rows, a reward, and a study that runs, to be replaced piece by piece."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from seedfold.errors import UserError

FILES = ("data.jsonl", "reward.py", "task.toml")
Row = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """about: in a few words. row: from a line of `lines`, whose parts are separated by "|". task: TOML of the prompt and
    the limits; columns: what the data must have."""

    about: str
    columns: str
    lines: str
    row: Callable[..., Row]
    task: str


def new(folder: Path, kind: str = "classification") -> list[str]:
    """Write a task folder; what to do next, as lines.

    Raises:
        UserError: the kind is not known, or one of the files is there already.
    """
    if kind not in KINDS:
        raise UserError(f'"--kind" is "{kind}"; use one of {", ".join(KINDS)}')
    for name in FILES:
        if (folder / name).exists():
            raise UserError(f'"{folder / name}" exists and would be overwritten; give another folder or move it away')
    if folder.exists() and not folder.is_dir():
        raise UserError(f'"{folder}" is a file; give a folder, which is made if need be')
    chosen = KINDS[kind]
    rows = [chosen.row(*line.split("|")) for line in chosen.lines.strip().splitlines()]
    module = kind.replace("-", "_")
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "data.jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows),
        "reward.py": files("seedfold.tasks.templates").joinpath(f"{module}.py").read_text(encoding="utf-8"),
        "task.toml": _config(folder, chosen, len(rows)),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    place = shlex.quote(str(folder / "task.toml"))
    return [
        f"wrote {folder}: data.jsonl ({len(rows)} rows), reward.py, task.toml ({kind}: {chosen.about})",
        "put your rows and your reward in place of these; then, from here:",
        f"  seedfold check-task {place}",
        f"  seedfold run {place}",
    ]


def _config(folder: Path, kind: Kind, rows: int) -> str:
    name = folder.resolve().name or "task"
    data, reward = str(folder / "data.jsonl"), f"{folder / 'reward.py'}:reward"
    third = rows // 3
    return f"""# {kind.about[:1].upper()}{kind.about[1:]}. Paths are seen from where the command is run.
name = {json.dumps(name)}
model = "smollm2-135m"  # a hub name, a checkpoint directory or a .gguf file

[task]
name = "custom"
path = {json.dumps(data)}  # columns: {kind.columns}
reward = {json.dumps(reward)}
{kind.task.strip()}

[splits]  # just what the sample rows allow; a real study wants 128, 128 and 256, or more
search = {third}
select = {third}
test = {rows - 2 * third}

[search]  # a real study wants 64 candidates or more
candidates = 8
sigmas = [0.001, 0.002, 0.004]
votes = [1, 2, 4]
"""


# The kinds


SHOTS = (
    ("The sum on my bill is wrong.", "billing"),
    ("Where is my parcel?", "delivery"),
    ("I want to give this back.", "returns"),
    ("I cannot log in.", "account"),
)


def _classification(message: str, label: str) -> Row:
    """Worked examples are turns of the chat: that teaches a small model the format."""
    chat = [{"role": "system", "content": "Answer each message with one word: billing, delivery, returns or account."}]
    for question, answer in SHOTS:
        chat += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"prompt": [*chat, {"role": "user", "content": message}], "label": label}


def _extraction(text: str, event: str, city: str, day: str, price: str) -> Row:
    return {"text": text, "answer": {"event": event, "city": city, "day": day, "price": int(price)}}


def _tool_call(request: str, tool: str, arguments: str) -> Row:
    return {"request": request, "answer": {"tool": tool, "arguments": json.loads(arguments)}}


def _freeform(topic: str, words: str, reference: str) -> Row:
    return {"topic": topic, "words": ", ".join(words.split()), "reference": reference}


KINDS = {
    "classification": Kind(
        "one word out of a few, right or wrong",
        "prompt (a chat with worked examples), label",
        """
I was charged twice for the same order.|billing
Can I pay by bank transfer?|billing
The discount code did not change the total.|billing
The tracking page has not moved for days.|delivery
Can you leave it with my neighbour?|delivery
Only one of the two boxes has come.|delivery
The shoes are too small, I will send them back.|returns
Where is the label for sending it back?|returns
Can I swap the large shirt for a medium?|returns
The reset mail for my password never comes.|account
Please delete my profile.|account
Somebody signed in as me from another country.|account
""",
        _classification,
        """
# No prompt here: the column "prompt" has whole chats. For texts, write prompt = "… {column} …".
max_tokens = 8
stop = ["\\n"]
""",
    ),
    "extraction": Kind(
        "a text to a JSON object, with a share of the reward for each field",
        "text, answer (an object)",
        """
The Lantern Choir sings in Porto on Friday; a seat costs 12 euros.|The Lantern Choir|Porto|Friday|12
Bring a friend: Salsa Basics, this Saturday in Lyon, 18 euros each.|Salsa Basics|Lyon|Saturday|18
Monday evening means Poetry Slam in Ghent. You pay 7 euros.|Poetry Slam|Ghent|Monday|7
Early birds pay 20 euros for Winter Jazz, Tuesday, Basel.|Winter Jazz|Basel|Tuesday|20
The Night of Maps: Thursday, Aarhus, 9 euros, maps included.|Night of Maps|Aarhus|Thursday|9
Kids love the Robot Garage. It stops in Linz on Friday for 10 euros.|Robot Garage|Linz|Friday|10
At 16 euros the Herb Walk is a bargain. It is held in Nantes on Sunday.|Herb Walk|Nantes|Sunday|16
Come hungry to the Dumpling Day, Saturday, in Brno, for 19 euros.|Dumpling Day|Brno|Saturday|19
Paint your own plate at Wet Glaze in Bonn. Wednesday, 29 euros.|Wet Glaze|Bonn|Wednesday|29
A ticket for Paper Boats is 9 euros, and the boats sail in Bruges on Friday.|Paper Boats|Bruges|Friday|9
You can see Mars from Pau on Thursday. The evening is named Red Dot and costs 5 euros.|Red Dot|Pau|Thursday|5
Six chefs, one pot: see One Big Stew in Maribor on Friday for 32 euros.|One Big Stew|Maribor|Friday|32
""",
        _extraction,
        '''
# Braces are doubled where they are no placeholder.
prompt = """
Write each announcement as JSON with its event, city, day and price.

Announcement: Moon Walk, a show for children, is in Paris on Friday for 9 euros.
JSON: {{"event": "Moon Walk", "city": "Paris", "day": "Friday", "price": 9}}

Announcement: On Monday you can join the Tea Party in Rome. Admission is 34 euros.
JSON: {{"event": "Tea Party", "city": "Rome", "day": "Monday", "price": 34}}

Announcement: {text}
JSON:"""
max_tokens = 64
''',
    ),
    "tool-calls": Kind(
        "a request to the call of a tool, graded in steps by a TRL-style reward",
        "request, answer (a call)",
        """
Wake me in 20 minutes.|set_timer|{"minutes": 20}
The eggs need 7 minutes, please keep the time.|set_timer|{"minutes": 7}
Start a timer for half an hour.|set_timer|{"minutes": 30}
Will I need an umbrella in Dublin?|get_weather|{"city": "Dublin"}
How warm is it in Cairo today?|get_weather|{"city": "Cairo"}
Any storms coming to Manila?|get_weather|{"city": "Manila"}
Text Anna that I am late.|send_message|{"to": "Anna", "text": "I am late"}
Let Carla know dinner is ready.|send_message|{"to": "Carla", "text": "dinner is ready"}
Answer Noah with: no problem.|send_message|{"to": "Noah", "text": "no problem"}
Play something by Miles Davis.|play_music|{"artist": "Miles Davis"}
Could we have ABBA, loud?|play_music|{"artist": "ABBA"}
I have not listened to Bach for ages, change that.|play_music|{"artist": "Bach"}
""",
        _tool_call,
        '''
# Braces are doubled where they are no placeholder.
prompt = """
Tools:
{{"tool": "set_timer", "arguments": {{"minutes": 8}}}}
{{"tool": "get_weather", "arguments": {{"city": "Paris"}}}}
{{"tool": "send_message", "arguments": {{"to": "Sam", "text": "I am here"}}}}
{{"tool": "play_music", "arguments": {{"artist": "Elvis"}}}}

Write the tool call, as one line of JSON, for this request: {request}"""
max_tokens = 48
stop = ["\\n"]
''',
    ),
    "freeform": Kind(
        "free text, scored by what can be counted in it",
        "topic, words, reference",
        """
a harbour in winter|ice boats|Ice holds the boats until spring.
a market in the morning|fruit voices|Voices rise over crates of fruit.
a train at night|window moon|The moon runs along beside my window.
an old piano|keys dust|Dust sleeps on its yellow keys.
a first day at school|bag door|She holds her bag and waits at the door.
a long hike|boots hill|My boots know every stone of this hill.
a kitchen on Sunday|soup bread|There is soup on the stove and bread in the oven.
a library|silence pages|Turning pages are the only sound in the silence.
a summer storm|thunder fields|Thunder rolls over the dry fields.
a lost dog|street name|We walk each street and call his name.
a bridge in fog|river bell|Below us the river rings a hidden bell.
a grandmother's garden|beans hands|Her hands tie the beans to the fence.
""",
        _freeform,
        """
prompt = "Write one or two sentences about {topic}. Use these words: {words}."
max_tokens = 64
""",
    ),
}

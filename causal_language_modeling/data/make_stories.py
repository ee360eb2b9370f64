"""Write the stories of this tutorial: two small worlds and a set of requests.

    python make_stories.py            write woods/, sea/ and instructions/
    python make_stories.py --show     print one story for every plot, beat by beat

How a story is made
-------------------
A *world* is a cast (heroes, traits, names, helpers), a stock of things and
places, and a list of plots. A *plot* is a list of beats; a *beat* is a list of
templates, of which one is told ("" means that the beat may be left out).
In a template

    {slot}      is filled from the story's cast: {name}, {thing}, {spot} ...
    {who}       is the hero: by name, by kind or by pronoun, as it comes
    [a|b|c]     is one of the choices; choices may be nested.

Everything that must agree from the first sentence to the last (who, what, where
it was hidden, who helped) is a slot, drawn once for each story; everything that
may vary freely is a choice. A plot suits some traits only, so that a shy hero
meets the troubles of the shy. To add a plot, add a `Plot(...)` to a world.
"""

import gzip
import itertools
import json
import random
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
SEED = 7
WORDS = (56, 84)  # a story must have no fewer and no more words than this
PIECES = 100  # and no more words and punctuation marks together
HELD_OUT = 0.1  # share of (hero, thing, place) kept for the requests of validation and test


@dataclass
class Plot:
    name: str
    traits: str  # the traits it suits
    beats: list
    picks: dict = field(default_factory=dict)  # slots of this plot only


@dataclass
class World:
    heroes: str
    helpers: str
    names: dict  # pronoun -> names
    traits: dict  # trait -> a sentence that shows it
    things: dict  # thing -> (adjectives, noise, uses); a use is "verb/past how"
    places: dict  # place -> (where, whither, spots in which a thing may lie)
    plots: list


# ---------------------------------------------------------------- beats of every plot

# Every story starts with its title.
TITLE = [
    "{name} the {hero} and the {thing} {at}.",
    "{name}, the {trait} {hero}, and the {thing} of the {place}.",
    "A {thing} for {name}, the {trait} {hero} {at}.",
    "{name} the {trait} {hero} and the {thing} {at}.",
]
# Who and where.
OPEN = [
    "[Once|Long ago|Not long ago] there lived {at} a {trait} {hero} called {name}.",
    "{name} was a {trait} {hero}, and {he} [lived|had {his} home|slept] {at}.",
    "A {trait} {hero} named {name} [lived|had a snug home|made {his} bed] {at}.",
    "{at} lived {name}, a {trait} {hero}.",
    "The {trait} {hero} who lived {at} was called {name}.",
    "Everyone {at} knew {name}, the {trait} {hero}.",
    "No {hero} {at} was as {trait} as {name}.",
]
# What the trait looks like; often left out.
HABIT = ["{habit}", ""]
# What the hero wants, and what for.
WANT = [
    "{who} [wanted|wished for|needed|longed for] a {adj} {thing} to {do} {how}.",
    "[One day|That week|One morning] {who} wished for a {thing} to {do} {how}.",
    '"If only I had a {thing} to {do} {how}," {who} [said|sighed|thought].',
    "What {who} [lacked|needed|missed] was a {adj} {thing} to {do} {how}.",
    '"I need a {thing} to {do} {how}," said {name}.',
]

# ---------------------------------------------------------------- the woods

WOODS_PLOTS = [
    Plot("afraid to ask", "shy gentle", [
        OPEN, HABIT, WANT,
        ["The {helper} [must know|surely knew] of one, but {name} did not dare to ask.",
         "{who} was too {trait} to ask the {helper}, who knew where everything was.",
         "The {helper} could help, but it [had such a loud voice|looked so stern]."],
        ["So {who} searched alone [till noon|all morning|until it rained] and found only [leaves|nettles|an old boot|acorns].",
         "[Twice|Three times] {who} knocked and ran home again.",
         "{name} opened {his} mouth, [went red|shook a little] and said nothing.", ""],
        ['At last {who} [took a deep breath|shut {his} eyes|stood up straight]. "Please, have you seen a {thing}?"',
         '"[Excuse me|Please]," {who} [whispered|said] at last, "where could I find a {thing}?"'],
        ['"[Look {spot}|There is one {spot}|Try {spot}]," said the {helper}.',
         'The {helper} smiled. "[You only had to ask|I am glad you asked]. It is {spot}."'],
        ["[That evening|The next day] {name} {did} the {thing} {how}, and [the {helper} came to see|asked the {helper} to come].",
         "There lay the {thing}, and the next question was [much easier|not half so hard].",
         "{he} {did} the {thing} {how}. [Now|Since then] the {hero} [says hello to|talks with] the {helper} every day."],
    ]),
    Plot("too much at once", "greedy hasty", [
        OPEN,
        ["{spot} {who} found a {adj} {thing}, {food} and {food2}.",
         "One day {who} came upon a {thing}, {food} and {food2}, {spot}.",
         "A pedlar had left {food}, {food2} and a {adj} {thing} {spot}."],
        ['"[All mine|I will take it all|Not a crumb stays here]!" said {name}, and [piled it up|picked up everything].',
         "{who} wanted [all of it|every bit] and held it in one great heap.",
         '"Go twice," said the {helper}, but {name} [took everything|would not leave a crumb].'],
        ["[Soon|At the first bend|Near home] the {hero}, who could not see the path, tripped, "
         "and {the_food} [rolled away|went into the mud].",
         "The heap was so high that {who} slipped, and down it all [fell|came|went], {thing} and all."],
        ['The {helper} helped {him} up. "[Take|Keep] {the_food2}," said {name}. "[I had too much|One thing is enough for me]."',
         '"[May I help|Shall I hold something]?" asked the {helper}, and {name} gave it {the_food2}.'],
        ["{who} kept only the {thing} and {did} it {how}.",
         "One {thing} was [enough|plenty]: {who} {did} it {how}.",
         "[Later|That night] {who} {did} the {thing} {how}, while the {helper} ate {the_food2}."],
    ], {"food the_food": [("six pears", "the pears"), ("ten plums", "the plums"), ("a bag of nuts", "the nuts")],
        "food2 the_food2": [("two loaves", "the loaves"), ("a seed cake", "the cake"), ("some honey", "the honey"),
                            ("a pie", "the pie")]}),
    Plot("the trail", "curious clever careful", [
        OPEN, HABIT,
        ["{who} had a {adj} {thing} to {do} {how}.",
         "On {his} shelf stood a {adj} {thing} to {do} {how}.",
         "{his} aunt had given {him} a {thing} to {do} {how}."],
        ["[One morning|After the storm|On Monday] it was gone, and in its place lay {clue}.",
         "Then the {thing} [vanished|was missing]. {name} found only {clue}."],
        ['"[Who leaves such a thing behind?|Now whose is this?|How odd!]" [said|thought] the {hero}.',
         "{who} looked closely. There was {clue} [by the door|on the path|in the grass] too.",
         "{who} followed the trail [step by step|slowly], and it never left the {place}."],
        ["There, {spot}, sat the {helper} with the {thing}.",
         "The trail ended {spot}, where the {helper} was [asleep beside|looking at|playing with] the {thing}."],
        ['"I only wanted to [try|see] it," said the {helper}.',
         '"It is so [pretty|fine]," said the {helper}, and {name} [could not be cross|had to smile].', ""],
        ["[Now|Since then] the {thing} [goes to the {helper} every Sunday|spends one day a week with the {helper}].",
         "They took turns with the {thing} [until supper|till it was dark].",
         "{who} took the {thing} home, but {he} [lends it to the {helper} on Sundays|gave the {helper} a cake]."],
    ], {"clue helper": [("a black feather", "crow"), ("a wet footprint", "toad"), ("a tuft of wool", "sheep"),
                        ("a long white hair", "donkey"), ("a blue feather", "jay"), ("a silver thread", "snail")]}),
    Plot("too high", "stubborn proud clever", [
        OPEN, WANT,
        ["One was stuck {high}.",
         "[One windy day|At noon] {who} saw a {thing} {high}."],
        ["The {hero} jumped [and jumped in vain|until {his} legs ached|ten times, and fell ten times].",
         "{name} threw [a stick|a clod of earth|{his} shoe] at the {thing}, and missed."],
        ['"Shall I help?" asked the {helper}. "[Never|I can do it alone|Certainly not]," said {name}.',
         'The {helper} came to help. "[I need nobody|Alone or not at all]," said {name}.'],
        ['"[Two are taller than one|I was wrong]," {who} said [at last|in the end], and climbed on its back.',
         '"[Climb on my back|Up you go]," said the {helper}, and {name} [did|did not argue].'],
        ["Down came the {thing}. {name} {did} it {how}, [with the {helper} beside {him}|and called it our {thing}].",
         "So the {hero} {did} the {thing} {how} and thanked the {helper} [twice|out loud]."],
    ], {"high": ["at the top of a tall post", "at the tip of a long pole", "on a high wall"]}),
    Plot("given away", "kind gentle patient", [
        OPEN, HABIT,
        ["{who} [saved|worked|picked berries] all {season} for a {adj} {thing} to {do} {how}.",
         "At the {season} fair {who} bought a {thing} to {do} {how}."],
        ["On the way home {who} met the {helper}, who was [crying|very sad|sitting in the rain].",
         "But [by the path|near home|at the corner] sat the {helper}, [all alone|cold and sad]."],
        ['"My {thing} was {lost}," it said. "[Now I have none.|What shall I do?|I was so fond of it.]"',
         'Its own {thing} had been {lost}. "[It was all I had|I looked everywhere]," said the {helper}.'],
        ["{name} looked at the new {thing} for [a long time|a while]. \"[Take mine.|It is yours.|You need it more.]\"",
         '"Then take this one," said the {hero}, [before {he} could change {his} mind|and held it out].'],
        ["That night {who} had no {thing}, [but {he} slept well|and only minded a little|but {he} had a friend].",
         "[A week later|Soon after] the {helper} {did} the {thing} {how} and [called {name} to join in|sang about {name}].",
         "{name} came home without a {thing}, and the {helper} [waved until dark|brought soup the next day|visits often]."],
    ], {"season": ["spring", "summer", "autumn", "winter"],
        "lost": ["lost in the flood", "swept away in the storm", "burned in a fire", "stolen in the night"]}),
    Plot("too late", "lazy sleepy", [
        OPEN, HABIT,
        ["The {helper} told {him} of a {adj} {thing} {spot}, just right to {do} {how}.",
         "{who} wanted a {thing} to {do} {how}, and one lay {spot}."],
        ['"[I will go tomorrow|Tomorrow is soon enough|There is no hurry]," {name} [yawned|said] '
         'and [lay down again|shut {his} eyes|turned over].',
         "The {hero} [got up, stretched|put on one shoe, yawned] and went back to bed."],
        ["[The next day was hot|Then it rained], and {who} [stayed in|slept on].",
         "{who} slept [two days|all afternoon] and dreamed of the {thing}.", ""],
        ["When {who} came at last, there was only [a round mark|a dry patch|a hole] {spot}.",
         "At last {who} went {to}, but {spot} there was [nothing|only grass]."],
        ['"[A beetle|A young moth|A wren] took it [an hour ago|on the first day|at dawn]," said the {helper}.',
         '"You [are too late|slept too long]," said the {helper}.'],
        ["{name} went home without a {thing}. The next day {he} was up [before the sun|first].",
         "So the {hero} has no {thing}, but {he} [has a very good bed|goes to bed early now|knows what tomorrow costs].",
         "{who} [sighed|nodded slowly]. For the next {thing} {he} would [get up|run]."],
    ]),
    Plot("ran past it", "hasty forgetful curious", [
        OPEN, HABIT,
        ["[On Friday|One day|Before breakfast] {who} lost {his} {adj} {thing}, "
         "[the one {he} {did} {how}|and {he} wanted to {do} it {how}].",
         '"Where is my {thing}? I must {do} it {how}!" [cried|shouted] {name}.'],
        ["{who} ran [here and there|up and down|round and round] {at}, [knocked over two pails|and was soon out of breath].",
         "{who} turned over every [stone|leaf|bench] {at} [in vain|and left a great mess].",
         "{name} searched {at} [twice|five times] before noon."],
        ['"[Wait|Stop|Slow down]," said the {slow}. "I have no time!" [called|cried] the {hero}.',
         'The {slow} said something, but the {hero} was [gone already|too fast to hear it].'],
        ['At last {who} [tripped over|sat down by] the {slow}. "You [passed|jumped over|stepped on] it [three|four|seven] times," it said.',
         '"You were too fast," said the {slow} at last. "It is {spot}."',
         "By evening {who} could only walk. {spot}, beside the {slow}, lay the {thing}."],
        ["{name} carried the {thing} home [slowly|at the pace of the {slow}], and saw [flowers|the first star|a rainbow] on the way.",
         "So {who} {did} the {thing} {how} and [gave the {slow} a ride home|thanked the {slow}].",
         "[Now|These days] {who} asks the {slow} first when [a {thing}|something] is missing."],
    ], {"slow": ["snail", "tortoise", "beetle", "worm"]}),
    Plot("earned", "patient careful lazy", [
        OPEN, HABIT,
        ['The {helper} had a {thing}, just right to {do} {how}. "[{Chore}|First {chore}], and it is yours," it said.',
         '{who} wanted a {adj} {thing} to {do} {how}. "{Chore}, and you may have mine," said the {helper}.'],
        ["So {name} {chored} [from dawn to dusk|day after day|till {his} back ached].",
         "{name} {chored} and [did not complain|sang a little|sighed a little|counted the hours]."],
        ["Then it rained, and [half of it was to do again|it took twice as long].",
         "[Once|On the second day] {who} nearly ran off.", ""],
        ['"A bargain is a bargain," said the {helper} [at the end|on the last day], and [brought|handed over] the {thing}.',
         'When all was done, the {helper} fetched the {thing}. "[You earned it|Well done]," it said.'],
        ["That evening {name} {did} the {thing} {how}, [tired and proud|and it was worth every hour].",
         "{he} {did} it {how}. No {thing} seemed [finer|dearer] to the {hero}.",
         "The {hero} took the {thing} home, and [next week came back to help for nothing|the {helper} came along for tea]."],
    ], {"chore chored": [("stack the wood", "stacked the wood"), ("sweep the yard", "swept the yard"),
                         ("dig up the beans", "dug up the beans"), ("carry the hay", "carried the hay"),
                         ("mend the fence", "mended the fence"), ("peel the turnips", "peeled the turnips")]}),
    Plot("a noise at night", "brave shy curious", [
        OPEN, HABIT, WANT,
        ["[One night|On a windy night|At midnight] a strange noise came from {spot}: {noise}, {noise}.",
         "Then, every night, something went {noise}, {noise}, {spot}."],
        ['"[It is a ghost|A ghost]," said the {helper}, and [hid under a leaf|locked its door|would not come out].',
         "Nobody dared to look. Even the {helper} [stayed in bed|hid its head]."],
        ["{name}'s knees shook, but {he} [went to look|took one step, and then another].",
         "The {hero} was afraid too, but {he} [wanted to know|went on].",
         '"[Someone must look|I will count to ten and go]," said the {hero}.'],
        ["{Noise}! It was only a {adj} {thing}, [moving in the wind|rocked by the wind].",
         "There was no ghost. There was a {thing}, and the wind [pushed it about|played with it]."],
        ['So {name} [had|got] a {thing}. {he} {did} it {how}.',
         "{name} kept the {thing} and {did} it {how}.",
         "{name} {did} the {thing} {how}, and [that night all was still|everyone slept well|the nights were quiet again]."],
    ]),
    Plot("keep away", "grumpy proud greedy", [
        OPEN, HABIT,
        ["{who} found a {adj} {thing} to {do} {how}, and {guard}.",
         '{spot} lay a {thing} to {do} {how}. "[Mine|Nobody shall touch it]!" {who} [growled|muttered|said], and {guard}.'],
        ['"May I see the {thing}?" asked the {helper}. "[No|Go away|Not today]," said the {hero}.',
         "When the {helper} [came by|knocked|said hello], {who} hid the {thing} [behind {his} back|under a heap of leaves]."],
        ["So {who} {did} it {how}, all alone, [and it was not much fun|and nobody clapped|and yawned].",
         "{who} {did} the {thing} {how}. [Nobody laughed, nobody sang|It was very quiet]."],
        ['{name} {give_in}. "[You may look|Come in|It is your turn]," {he} said.',
         "At last {who} carried the {thing} outside and said, \"[It is better with two|I was rude].\""],
        ["They took turns with the {thing}, and [this time it was fun|the {hero} laughed first|{name} forgot to be {trait}].",
         "The {helper} [stayed for supper|came back the next day], and the {thing} lay between them."],
    ], {"guard give_in": [("put up a sign: Keep Away", "took down the sign"), ("shut the door", "opened the door"),
                         ("told nobody", "coughed")]}),
    Plot("had it all along", "forgetful sleepy grumpy", [
        OPEN, HABIT,
        ["[One day|On Sunday|At noon] {who} wanted to {do} {his} {adj} {thing} {how}, but it was [gone|nowhere to be seen].",
         '"Who took my {thing}?" asked {name}. "I want to {do} it {how}."'],
        ["{who} looked {spot}. {he} looked [in the bread bin|under the bed|in both boots].",
         "{who} [hunted|searched] {spot} and [behind the stove|in the sink|up the chimney]."],
        ["{who} [asked|blamed] the {helper}, and the {helper} [only smiled|helped {him} look].",
         "The {hero} looked [everywhere|again] {at} and [grew crosser|scratched {his} head].", ""],
        ['"[What is that on your back|And what are you sitting on|What are you holding there]?" asked the {helper}.',
         'Then the {helper} began to laugh. "[Look behind you|Turn round|Feel the top of your head]," it said.'],
        ["It was the {thing}. {name} [blushed|laughed too].",
         "There was the {thing}, and there it had been all [day|along]."],
        ["{who} {did} it {how}, and the {helper} [laughed about it for weeks|still tells the story|kept an eye on it].",
         "The {hero} {did} the {thing} {how} at once, [before {he} could lose it again|and laughed with the {helper}]."],
    ]),
]

WOODS = World(
    heroes="fox hare mouse badger rabbit squirrel mole deer bear wolf goat lamb hen duck goose frog cat dog pig pony",
    helpers="owl crow toad heron donkey sheep hedgehog horse magpie ox",
    names={"he": "Tam Pip Bram Otto Hugo Jem Rufus Ned Toby Gus Leo Kit Milo Sam".split(),
           "she": "Nell Ida Mina Tess Lotte Dora Posy Maud Ada Elsie Tilly Bess Ruby Anna".split()},
    traits={
        "shy": "{he} [spoke so softly that few could hear|looked at the ground when others came by|blushed at every hello].",
        "gentle": "{he} [stepped around every ant|never raised {his} voice|sang to the bees].",
        "greedy": "{he} [never had enough of anything|counted {his} things twice a day|ate as if it were a race].",
        "hasty": "{he} [never finished a sentence|ran even when {he} had time|put {his} coat on backwards every day].",
        "curious": "{he} [looked under every stone|asked why ten times a day|could not leave a box shut].",
        "clever": "{he} [could count to a thousand|had a plan for every day|knew three ways to open a nut].",
        "careful": "{he} [looked twice at everything|tested every stone before {he} stepped on it|never spilled a drop].",
        "stubborn": "{he} [never changed {his} mind|said no before anyone asked|would rather push than pull].",
        "proud": "{he} [walked with {his} nose in the air|never said sorry|thought {himself} the best at everything].",
        "kind": "{he} [shared {his} bread with everyone|had time for anybody|could not pass a sad face].",
        "patient": "{he} [could watch grass grow|never minded waiting|counted clouds while {he} waited].",
        "lazy": "{he} [got up at noon|yawned at the very word work|let the grass grow over the doorstep].",
        "sleepy": "{he} [could sleep standing up|yawned in the middle of words|went to bed before the sun].",
        "forgetful": "{he} [wore two socks that never matched|tied knots and forgot what they were for|lost something every day].",
        "brave": "{he} [was not afraid of thunder|climbed the tallest trees|slept with the window open].",
        "grumpy": "{he} [frowned at the sun|did not like Mondays, or any day|answered every question with a grunt].",
    },
    things={
        "bell": ("brass silver", "ding", ["ring/rang at the party", "hang/hung over the door"]),
        "lamp": ("green little", "clink", ["light/lit on the stairs", "set/set in the window"]),
        "kite": ("red yellow", "flap", ["fly/flew in the wind", "fly/flew above the trees"]),
        "drum": ("round painted", "boom", ["beat/beat at the dance", "play/played in the parade"]),
        "ball": ("striped blue", "bump", ["roll/rolled down the lane", "toss/tossed over the wall"]),
        "ribbon": ("silk yellow", "swish", ["wear/wore at the party", "tie/tied to the door"]),
        "button": ("gold wooden", "click", ["sew/sewed on an old coat", "wear/wore on a new coat"]),
        "spoon": ("silver long", "clink", ["use/used for the jam", "dip/dipped in the honey"]),
        "key": ("iron rusty", "clank", ["try/tried in the blue door", "hang/hung on a nail"]),
        "cup": ("white little", "clink", ["fill/filled with mint tea", "fill/filled with warm milk"]),
        "hat": ("straw green", "flop", ["wear/wore at the picnic", "wear/wore in the rain"]),
        "scarf": ("woolly red", "swish", ["wear/wore on a long walk", "wrap/wrapped round cold ears"]),
        "whistle": ("tin wooden", "peep", ["blow/blew from the roof", "blow/blew in the parade"]),
        "basket": ("round willow", "creak", ["fill/filled with mushrooms", "fill/filled with berries"]),
        "mirror": ("little round", "tap", ["hang/hung by the stairs", "set/set on the shelf"]),
        "flute": ("wooden silver", "hoo", ["play/played under the stars", "play/played at the dance"]),
        "rope": ("strong long", "slap", ["hang/hung from a branch as a swing", "tie/tied between two trees"]),
        "bucket": ("tin blue", "bonk", ["fill/filled with rain", "fill/filled with apples"]),
        "clock": ("wooden little", "tick", ["wind/wound with great care", "set/set above the fire"]),
        "blanket": ("warm patched", "flap", ["spread/spread on the bed", "spread/spread under the stars"]),
    },
    places={
        "river": ("by the river", "to the river", ["among the reeds", "behind the grey stone", "under the willow root"]),
        "barn": ("in the barn", "to the barn", ["behind the hay", "under the broken cart", "in the empty stall"]),
        "mill": ("behind the mill", "to the mill", ["under the flour sack", "beside the wheel", "behind the millstone"]),
        "meadow": ("in the meadow", "to the meadow", ["among the daisies", "in the tall grass", "behind the molehill"]),
        "pond": ("by the pond", "to the pond", ["among the rushes", "under the lily leaf", "beside the rotten log"]),
        "bridge": ("under the bridge", "to the bridge", ["behind the mossy post", "between two planks", "in the dark corner"]),
        "orchard": ("in the orchard", "to the orchard", ["among the fallen pears", "behind the ladder", "under the plum tree"]),
        "hedge": ("under the hedge", "to the hedge", ["in the old nest", "among the thorns", "under the ivy"]),
        "oak": ("under the old oak", "to the old oak", ["between two roots", "under the heap of acorns", "in the hole in the bark"]),
        "hill": ("on the hill", "up the hill", ["behind the flat rock", "among the heather", "beside the lone pine"]),
        "garden": ("in the garden", "to the garden", ["between the cabbages", "under the flower pot", "among the roses"]),
        "brook": ("by the brook", "to the brook", ["under the mossy log", "among the ferns", "beside the flat pebble"]),
        "hollow": ("in the hollow", "to the hollow", ["under dry leaves", "behind the stump", "among the toadstools"]),
        "gate": ("near the gate", "to the gate", ["under the loose stone", "in the long grass", "behind the milk can"]),
        "field": ("in the field", "to the field", ["among the poppies", "behind the scarecrow", "between the furrows"]),
        "cabin": ("near the cabin", "to the cabin", ["under the porch", "behind the woodpile", "beside the chimney"]),
    },
    plots=WOODS_PLOTS,
)

# ---------------------------------------------------------------- the sea

SEA_PLOTS = [
    Plot("the tide", "bold merry clumsy", [
        OPEN, HABIT,
        ["[At low tide|When the water was out] a {adj} {thing} lay far out on {bank}.",
         "{who} wanted a {thing} to {do} {how}, and one lay on {bank}, dry only at low tide."],
        ['"The tide is turning!" [called|warned] the {helper}. "[I am faster|Only a minute]," said {name}.',
         "The {helper} called a warning, but the {hero} [was already on {his} way|only waved]."],
        ["{who} had just [grasped|reached] the {thing} when a wave came up to {his} [knees|belly|chin].",
         "Halfway back, with the {thing} in {his} arms, {who} saw water on every side.", ""],
        ["{who} [had to choose|could not hold both], and let go of the {thing} to grab a plank.",
         "A great wave knocked {him} flat, and the {thing} [slid away|sank with hardly a splash]."],
        ["The sea has the {thing} now, and {name} [has learned to read the tide|looks before {he} leaps].",
         "{who} never saw that {thing} again, [but it made a good tale|or laughed at the tide].",
         '"It was only a {thing}," said the {hero}, [shivering|sneezing], "and there is only one of me."'],
    ], {"bank": ["the sand bank", "the mud flats", "a bar of sand"]}),
    Plot("the map", "dreamy wily merry", [
        OPEN, HABIT,
        ["[One morning|After the storm] a bottle brought {him} a map. It [showed|promised] a {adj} {thing}.",
         "In an old boat {who} found a map with a cross: there lay a {thing} to {do} {how}."],
        ["[Twelve steps north|Forty strokes west|Past two black posts], {name} dug up {junk} and {junk2}.",
         "{who} [followed it|went by it] and dug, but there was only {junk2}.",
         "At the cross {who} dug. Out came {junk}, and then {junk2}, but no {thing}."],
        ['"[Funny|Hm]," said the {helper}, "you hold the map upside down."',
         "The {helper} looked over {his} shoulder and turned the map [round|the right way up]."],
        ["So the {hero} counted again, and there, {spot}, was the {thing}.",
         "[Then it was easy|Now all was clear]: {spot} lay the {adj} {thing}."],
        ["{name} {did} the {thing} {how} and gave the {helper} {the_junk2}.",
         "{who} {did} it {how} and [threw the map back for someone else|thanked the {helper}]."],
    ], {"junk": ["a rusty stove", "a wooden leg", "half a chair", "a tin of sardines"],
        "junk2 the_junk2": [("a left boot", "the boot"), ("a bent fork", "the fork"), ("a cracked plate", "the plate"),
                            ("a sad old clam", "the clam")]}),
    Plot("fog", "timid lonely quiet", [
        OPEN, HABIT,
        ["[Far from home|On a distant shore] {who} had found a {adj} {thing} to {do} {how}.",
         "One day {who} sailed out to fetch a {thing} to {do} {how}."],
        ["On the way back the fog came down, [thick as wool|white and cold].",
         "Then fog rolled in, and the {hero} could not tell [sky from sea|left from right]."],
        ["Then, [far away|low and deep], {who} heard the {big} singing.",
         "Out of the white came the {big}, as [slow|big] as a ship."],
        ['"[Follow my song|Stay close to my tail]," it said, "and hold on to your {thing}."',
         '"I am going {to}," said the {big}. "[I know the way|Come along]."'],
        ["So {who} came home and {did} the {thing} {how}. On foggy days {he} [sings|hums] too.",
         "[At midnight|At sunrise] they were there. {name} {did} the {thing} {how} and [hummed|sang] the song of the {big}."],
    ], {"big": ["whale", "old whale", "blue whale", "narwhal"]}),
    Plot("the swap", "honest wily jolly", [
        OPEN, HABIT,
        ["The {helper} sold a {adj} {thing} for {price}, but {name} had only {good1}.",
         '{he} [wanted|needed] a {thing} to {do} {how}. "{Price}," said the {helper}. {name} had only {good1}.'],
        ["A [cod|cook] gave {him} {good2} for {the_good1}, and a [ray|skipper] gave {price} for {the_good2}.",
         "So {who} swapped {the_good1} for {good2}, and {the_good2} for {price}."],
        ['"[A deal is a deal|It will do]," said the {helper}, and gave {him} the {thing}.',
         '"Then you owe me a song," said the {helper}, and handed over the {thing}.'],
        ["{name} {did} the {thing} {how}, and it had all begun with {good1}.",
         "{who} {did} the {thing} {how} and [told everyone the price: {good1}|wondered what to swap it for]."],
    ], {"good1 the_good1": [("a coil of line", "the line"), ("a fish hook", "the hook"), ("a bag of salt", "the salt")],
        "good2 the_good2": [("a jar of ink", "the ink"), ("a wool cap", "the cap"), ("a pot of tar", "the tar")],
        "price": ["a sack of coal", "a box of oranges", "a keg of oil"]}),
    Plot("the sleeper", "bold quiet timid", [
        OPEN, HABIT,
        ["Deep down lay a {adj} {thing} to {do} {how}, but the {big} slept around it.",
         "{who} [wanted|needed] a {thing} to {do} {how}. {spot} [lay|gleamed] one, and on it slept the {big}."],
        ["{name} dived and [pulled|tugged] at it. One [cold|yellow] eye opened.",
         "[Softly|Slowly] the {hero} swam down. An eye opened, as big as a plate.",
         '{who} pulled at it. "[Who wakes me|What do you want]?" said the {big}.'],
        ['"[Lend it to me|Let me have it]," {who} said, "and I will tell you a story."',
         "[Softly|In bubbles] {who} sang the song that [mothers|fishermen] sing."],
        ['"[In a hundred years|All this time] nobody [asked|was so kind]," said the {big}, and [rolled aside|let it go].',
         "The {big} [smiled in its sleep|sighed a stream of bubbles], and the {thing} rolled free."],
        ["{name} {did} the {thing} {how}, and on Fridays {he} dives down to [chat|sing].",
         "{who} {did} the {thing} {how}. The {big} sleeps on[ and smiles|]."],
    ], {"big": ["old shark", "great eel", "grey shark", "sea snake", "huge ray"]}),
    Plot("the race", "vain bold jolly", [
        OPEN,
        ["The prize of the boat race was a {adj} {thing} to {do} {how}.",
         '"First prize: a {thing}!" said the poster. {name} wanted to {do} it {how}.'],
        ["{name} was in front [at the second buoy|from the start|by three lengths].",
         "Round the buoys flew {his} little boat, [faster than all|ahead of everyone].", ""],
        ["Then {who} heard a cry. The {helper} [hung on an upturned boat|was drifting towards the rocks].",
         "Behind {him} the {helper} [fell overboard|called for help]."],
        ['"[The prize|My {thing}]!" {who} [groaned|thought]. Then {he} turned the boat.',
         "[For a moment|While three waves passed] {who} thought of the {thing}. Then {he} [turned round|threw a line]."],
        ["They came in last, [wet and laughing|with one mast between them], and a cod took the {thing}.",
         "When they got {to}, the race was over, and the {thing} was [won|gone]."],
        ['"I [lost|have no {thing}]," {name} said, "but I [have a crew|sailed well]." The {helper} [passed the soup|agreed].',
         "The {hero} had no {thing}, but the {helper} [painted {his} name on its boat|never sails without {him}].",
         "Next year they sailed in one boat, [and came in third|and won a {thing} too]."],
    ]),
    Plot("the net", "loyal honest lonely", [
        OPEN, HABIT,
        ["[One grey day|One morning] {who} saw a {thing} float by, just right to {do} {how}.",
         "The current carried past a {adj} {thing} to {do} {how}."],
        ["Then {who} saw the {helper}, caught in an old net {spot}.",
         '"Help!" cried the {helper}. It was caught in a net {spot}.'],
        ["The {thing} drifted on. {name} looked at it [once more|for one breath], and turned to the net.",
         "It was now or never. The {hero} [let the {thing} go|chose the net]."],
        ["[Knot by knot|Thread by thread] {who} [bit|cut] it open, and it took [till dark|an hour].",
         "The knots were [hard|wet and tight], but {who} [did not stop|worked on].", ""],
        ['"You lost your {thing} for me," said the {helper}. "I know," said {name}.',
         "[Free again|Shaking its limbs], the {helper} asked about the {thing}, and {who} told it.", ""],
        ["[Three days later|At the new moon] the {helper} brought {him} the {thing}, and {name} {did} it {how}.",
         "{name} has no {thing}, but the {helper} [comes by at every tide|keeps {him} company now]."],
    ]),
    Plot("overboard", "clumsy dreamy vain", [
        OPEN, HABIT,
        ["{who} had a {adj} {thing} to {do} {how}, and [carried it everywhere|showed it to every ship].",
         "{who} was on {his} way to {do} {his} new {thing} {how}."],
        ["[But {who} looked at the clouds|A wave came|{he} bowed to the crowd], and splash! The {thing} fell [overboard|into the water].",
         "Then {who} [leaned out too far|turned to wave], and the {thing} was under water."],
        ["The {helper} dived and came up with {junk}, and then with {junk2}.",
         '"I will dive," said the {helper}, and brought up {junk}, and next {junk2}.'],
        ["The third time, up came the {thing}!",
         "The third time it found the {thing}, {spot}, [covered with weed|hardly scratched]."],
        ["{name} tied the {thing} [to {his} belt|on with a double knot] before {he} {did} it {how}.",
         "{who} {did} it {how}, and the {helper} kept {the_junk2} as a keepsake.",
         "Now the {helper} carries the {thing}, and {name} carries the {helper}'s lunch."],
    ], {"junk": ["a soup pot", "a broken chair", "a mitten", "an old tyre"],
        "junk2 the_junk2": [("a sea star", "the star"), ("a glass eye", "the eye"), ("a tin plate", "the plate"),
                            ("a wet wig", "the wig")]}),
]

SEA = World(
    heroes="crab seal gull turtle puffin otter penguin walrus pelican lobster sailor pirate diver captain shrimp squid",
    helpers="dolphin octopus cormorant swordfish herring starfish mackerel albatross",
    names={"he": "Kai Bo Jonas Olaf Sven Rory Luca Axel Marlo Noah".split(),
           "she": "Isla Lena Skye Mara Una Oona Selma Thea Nora Zoe".split()},
    traits={
        "bold": "{he} [swam out farther than anyone|laughed at high waves|dived from the tallest mast].",
        "timid": "{he} [never went deeper than {his} chin|jumped when a bubble burst|asked the waves to be quiet].",
        "merry": "{he} [whistled in the worst weather|danced on deck|knew a joke for every wave].",
        "dreamy": "{he} [talked to the clouds|sailed past {his} own door|counted stars at breakfast].",
        "lonely": "{he} [set two plates for dinner, just in case|talked to {his} own echo|waved at every far ship].",
        "wily": "{he} [had never paid for a dinner|knew every trick but one|won all games of cards].",
        "honest": "{he} [gave back every coin {he} found|never told a fib, even to fish|weighed every catch twice].",
        "vain": "{he} [combed {his} eyebrows at every tide|admired {himself} in still water|took two hours to get dressed].",
        "jolly": "{he} [laughed so that the boats shook|sang louder than the surf|slapped everyone on the back].",
        "clumsy": "{he} [fell into the water twice a day|stepped into every pail|dropped whatever {he} held].",
        "quiet": "{he} [made less noise than the moon|listened more than {he} spoke|said about ten words a week].",
        "loyal": "{he} [never left a friend behind|kept every promise|waited on shore till the last boat was in].",
    },
    things={
        "pearl": ("pink white", "", ["show/showed to the moon", "keep/kept in a silk bag"]),
        "compass": ("brass old", "", ["follow/followed to the north", "keep/kept beside the helm"]),
        "oar": ("long painted", "", ["use/used in the blue boat", "hang/hung above the bunk"]),
        "flag": ("striped red", "", ["wave/waved from the mast", "hoist/hoisted at sunrise"]),
        "shell": ("pink curly", "", ["hold/held to one ear", "set/set on the window sill"]),
        "lantern": ("copper green", "", ["light/lit on deck", "hang/hung on the mast"]),
        "hammock": ("striped soft", "", ["hang/hung between two palms", "hang/hung below deck"]),
        "horn": ("brass loud", "", ["blow/blew at the ships", "blow/blew from the bow"]),
        "fiddle": ("old red", "", ["play/played for the crew", "play/played in the moonlight"]),
        "kettle": ("copper black", "", ["fill/filled with fish soup", "set/set on the stove"]),
        "telescope": ("long brass", "", ["point/pointed at the comet", "point/pointed at far sails"]),
        "trumpet": ("silver loud", "", ["play/played for the crew", "blow/blew from the bow"]),
        "anchor": ("small heavy", "", ["use/used in the blue boat", "drop/dropped in calm water"]),
        "medal": ("gold round", "", ["wear/wore on a blue coat", "wear/wore at the feast"]),
        "sponge": ("yellow soft", "", ["use/used in the bath", "scrub/scrubbed the deck with"]),
        "raft": ("light strong", "", ["sail/sailed round the world", "paddle/paddled along the coast"]),
    },
    places={
        "reef": ("on the reef", "to the reef", ["among the corals", "under the sea fan", "in the narrow crack"]),
        "harbour": ("in the harbour", "to the harbour", ["behind the fish crates", "under the tarred boat", "among the mooring lines"]),
        "island": ("on the island", "to the island", ["under the palm", "beside the green spring", "among the coconuts"]),
        "lighthouse": ("near the lighthouse", "to the lighthouse",
                       ["behind the oil cans", "under the iron steps", "beside the white wall"]),
        "cove": ("in the cove", "to the cove", ["behind the round rock", "under the rowing boat", "among the driftwood"]),
        "beach": ("on the beach", "to the beach", ["under the seaweed", "among the pebbles", "in the rock pool"]),
        "wreck": ("near the wreck", "to the wreck", ["under the broken mast", "behind the ship's wheel", "in the empty barrel"]),
        "pier": ("under the pier", "to the pier", ["behind the mossy pile", "among the mussels", "beside the sunken bench"]),
        "lagoon": ("in the lagoon", "to the lagoon", ["among the mangroves", "under the pink coral", "in the white sand"]),
        "cliff": ("below the cliff", "to the cliff", ["under the steep ledge", "behind the fallen rock", "in the gap in the stone"]),
        "bay": ("in the bay", "to the bay", ["under the red buoy", "among the sea grass", "in the soft mud"]),
        "dock": ("at the dock", "to the dock", ["under the crane", "behind the stack of planks", "between two crates"]),
    },
    plots=SEA_PLOTS,
)

# ---------------------------------------------------------------- requests

REQUESTS = [
    "Tell [me |]a story about a {trait} {hero} who looks for a {thing} {at}.",
    "[Please write|Write] a story about a {trait} {hero} and a {thing}. It happens {at}.",
    "I would like a story set {at}, with a {trait} {hero} who wants a {thing}.",
    "[Can|Could] you tell a story of a {thing} and a {trait} {hero} {at}?",
    "Make up a story: a {trait} {hero}, a {thing}, and a home {at}.",
    "A {trait} {hero} lives {at} and dreams of a {thing}. What happens?",
    "{at}, a {trait} {hero} wants a {thing}. [Tell me more|Go on], please.",
    "My story needs a {hero} who is {trait}, and a {thing}. Let it take place {at}.",
    "[Give us|Tell us] a bedtime story {at}. The hero is a {trait} {hero}, and there is a {thing} in it.",
    "Who is {trait}, lives {at} and needs a {thing}? A {hero}! Tell its story.",
]

# ---------------------------------------------------------------- the machine

PRONOUNS = {
    "he": {"he": "he", "him": "him", "his": "his", "himself": "himself"},
    "she": {"he": "she", "him": "her", "his": "her", "himself": "herself"},
}


def fill(template, slots, rng):
    """One telling of a template: choose, fill in, and mend a/an and capitals."""
    while "[" in template:  # innermost choices first
        template = re.sub(r"\[([^\[\]]*)\]", lambda m: rng.choice(m[1].split("|")), template)
    who = rng.choice(["{name}", "{name}", "the {hero}", "the {hero}", "{he}"])
    text = template.replace("{who}", who).format(**slots)
    text = re.sub(r"\b([Aa]) (?=[aeiou]|honest)", r"\1n ", text)
    return re.sub(r'(^"?|[.!?] |\." )([a-z])', lambda m: m[1] + m[2].upper(), text)


def cast(world, rng, triple):
    """Draw the slots of one story and a plot that suits the trait."""
    hero, thing, place = triple
    trait = rng.choice(list(world.traits))
    plot = rng.choice([p for p in world.plots if trait in p.traits.split()])
    pronoun = rng.choice(["he", "she"])
    adjectives, noise, uses = world.things[thing]
    do, how = rng.choice(uses).split(" ", 1)
    where, whither, spots = world.places[place]
    slots = dict(PRONOUNS[pronoun], hero=hero, trait=trait, name=rng.choice(world.names[pronoun]),
                 thing=thing, adj=rng.choice(adjectives.split()), noise=noise, how=how,
                 do=do.split("/")[0], did=do.split("/")[1],
                 place=place, at=where, to=whither, spot=rng.choice(spots),
                 helper=rng.choice(world.helpers.split()))
    for names, choices in plot.picks.items():
        choice = rng.choice(choices)
        slots.update(zip(names.split(), choice) if " " in names else [(names, choice)])
    for name, value in list(slots.items()):
        slots[name.capitalize()] = value[:1].upper() + value[1:]
    slots["habit"] = fill(world.traits[trait], slots, rng)
    return plot, slots


def tell(world, rng, triple):
    """A story as a list of beats told, with its plot and its slots."""
    for attempt in itertools.count():
        if attempt % 50 == 0:  # these events need too many words: tell of others
            plot, slots = cast(world, rng, triple)
        beats = [fill(rng.choice(beat), slots, rng) for beat in [TITLE] + plot.beats]
        beats = [beat for beat in beats if beat]
        text = " ".join(beats)
        if WORDS[0] <= len(text.split()) <= WORDS[1] and len(re.findall(r"\w+|[^\w\s]", text)) <= PIECES:
            return plot, slots, beats


def triples(world):
    """All (hero, thing, place), shuffled, as two lists: for training and held out."""
    everything = list(itertools.product(world.heroes.split(), world.things, world.places))
    random.Random(SEED).shuffle(everything)
    held_out = int(len(everything) * HELD_OUT)
    return everything[held_out:], everything[:held_out]


def plain_rows(world, rng, pool, count, seen):
    """Rows of stories with nothing but their text, none of them told before."""
    rows = []
    while len(rows) < count:
        text = " ".join(tell(world, rng, rng.choice(pool))[2])
        if text not in seen:
            seen.add(text)
            rows.append({"text": text})
    return rows


def request_rows(world, rng, pool, count, seen):
    """Rows of a request and the story that answers it."""
    rows = []
    while len(rows) < count:
        triple = pool[len(rows) % len(pool)]
        _, slots, beats = tell(world, rng, triple)
        text = " ".join(beats)
        if text not in seen:
            seen.add(text)
            request = fill(rng.choice(REQUESTS), slots, rng)
            rows.append({"messages": [{"role": "user", "content": request},
                                      {"role": "assistant", "content": text}],
                         "keywords": list(triple)})
    return rows


def write(rows, folder, split):
    path = HERE / folder / f"{split}.jsonl.gz"
    path.parent.mkdir(exist_ok=True)
    with open(path, "wb") as file, gzip.GzipFile(fileobj=file, mode="wb", filename="", mtime=0) as packed:
        for row in rows:
            packed.write((json.dumps(row) + "\n").encode("ascii"))
    print(f"{path.relative_to(HERE)}: {len(rows)} rows, {path.stat().st_size / 1000:.0f} kB")


def main():
    seen = set()  # every story told so far: none is told twice
    for folder, world, train, test in [("woods", WOODS, 12000, 600), ("sea", SEA, 3000, 400)]:
        pool, _ = triples(world)
        for split, count in [("train", train), ("validation", test), ("test", test)]:
            rng = random.Random(f"{SEED} {folder} {split}")
            write(plain_rows(world, rng, pool, count, seen), folder, split)
    pool, held_out = triples(WOODS)
    random.Random(SEED + 1).shuffle(pool)  # not in the order of the stories above
    for split, some, count in [("train", pool, 4000), ("validation", held_out[:200], 200),
                               ("test", held_out[200:], 200)]:
        rng = random.Random(f"{SEED} instructions {split}")
        write(request_rows(WOODS, rng, some, count, seen), "instructions", split)


def show():
    rng = random.Random(SEED)
    for world in (WOODS, SEA):
        pool, _ = triples(world)
        for plot in world.plots:
            told = None
            while told is not plot:
                told, slots, beats = tell(world, rng, rng.choice(pool))
            print(f"\n{plot.name}  ({plot.traits})")
            for beat in beats:
                print("   ", beat)


if __name__ == "__main__":
    show() if "--show" in sys.argv else main()

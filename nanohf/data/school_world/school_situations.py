"""The situations of school problems: what happens with which numbers, and the steps that solve it."""

import random
import re
from decimal import Decimal
from typing import Any

from nanohf.data.toy_world.toy_word_problems import OPERATIONS, held_out

STEP = re.compile(r"(\w+)([-+*/])(\w+) ?(.*)")
LARGEST = 10_000  # of a result
MAGNITUDES = ((2, 12), (2, 99), (20, 99), (100, 999))
WEIGHTS = (35, 50, 10, 5)


class Situation:
    """Its steps, `a*b {box}; r1-c {thing}`, and the wordings of its question.

    A step works on the question's numbers a, b, c, d, on constants, and on r1, r2, the results of earlier steps; after
    it the unit of its result. Numbers are of any magnitude up to 999, from the range given, (low, high), or multiples
    of an earlier number, ("b", low, high). cents: the names of amounts of money with two places.
    """

    def __init__(self, steps: str, *questions: str, cents: str = "", **ranges: Any):
        self.steps = [match.groups() for step in steps.split("; ") if (match := STEP.fullmatch(step))]
        self.questions, self.cents, self.ranges = questions, cents, ranges
        used = {name for x, _, y, _ in self.steps for name in (x, y)} | set(ranges)
        told = re.findall(r"{([a-d])}", " ".join(questions))
        self.names = [*ranges, *sorted({name for name in {*used, *told} if name in "abcd"} - set(ranges))]
        self.constants = {name: int(name) for name in used if name.isdigit()}

    def draw(self, rng: random.Random, split: str) -> dict[str, int | Decimal]:
        """Different numbers of this split, none in both, whose results are exact, at least 2 and below LARGEST."""
        while True:
            numbers: dict[str, int | Decimal] = {}
            low, high = rng.choices(MAGNITUDES, WEIGHTS)[0]
            for name in self.names:
                numbers[name] = self._number(rng, name, numbers, low, high)
            drawn = set(numbers.values())
            if len(drawn) == len(numbers) and held_out(drawn) == (split == "test") and self._solve(numbers):
                return numbers

    def _number(self, rng: random.Random, name: str, numbers: dict, low: int, high: int) -> int | Decimal:
        if name in self.cents:
            return Decimal(rng.choice((rng.randint(110, 1999), 5 * rng.randint(20, 400)))).scaleb(-2)
        *unit, low, high = self.ranges.get(name, (low, high))
        return rng.randint(low, high) * (numbers[unit[0]] if unit else 1)

    def _solve(self, numbers: dict) -> bool:
        """Adds the constants and each step's result, as r1, r2, ...; whether all of the results are allowed."""
        numbers |= self.constants
        for number, (x, sign, y, _) in enumerate(self.steps, 1):
            left, right = numbers[x], numbers[y]
            if sign == "/" and left % right:
                return False
            result = OPERATIONS[sign](left, right)
            if not 2 <= result < LARGEST:
                return False
            numbers[f"r{number}"] = result
        return True


S = Situation
_FEW, _SOME = (2, 12), (2, 60)
_SHARE: dict[str, Any] = {"b": (2, 12), "a": ("b", 2, 30)}
_HOURS: dict[str, Any] = {"b": (2, 12)}
# fmt: off
SITUATIONS = (
    # What one has changes.
    S("a+b {thing}",
      "{A} <had> {a} {thing}. <gain>. <ask_now>",
      "{A} {thing.got} {a} {thing}<where>. <later> <gain>. <ask_now>",
      "{A} {thing.got} {a} {thing} and {B} {thing.got} {b} {thing}. <ask_total>",
      "{A} has {a} {thing}. If {A.he} gets {b} more<source>, how many {thing} will {A} have <total>?",
      "<gain>. {A} already had {a} {thing}. <ask_now>"),
    S("a+b {spot}",
      "There are {a} {spot} {spot.place}. {b} more {spot} {spot.come}. How many {spot} are there (now|<total>)?",
      "There (were|are) {a} {spot} {spot.place} and then {b} more {spot.come}. How many {spot} are {spot.place} now?"),
    S("a-b {thing}",
      "{A} <had> {a} {thing}. <loss>. <ask_left>",
      "{A} {thing.got} {a} {thing}<where>. <later> <loss>. <ask_left>",
      "{A} <had> {a} {thing}. {A.he} gave {b} {thing} to {B}. <ask_left>",
      "{A} had {a} {thing}. If {A.he} {thing.lost} {b} of them, how many does {A.he} have left?",
      "{A} gave {B} {b} of {A.his} {a} {thing}. <ask_left>"),
    S("a-b {spot}",
      "There are {a} {spot} {spot.place}. {b} of them {spot.go}. How many {spot} are (left|still there)?",
      "There (were|are) {a} {spot} {spot.place}. <later> {b} {spot} {spot.go}. How many {spot} are {spot.place} now?"),
    # Something is missing: before, of the change, of a whole.
    S("a-b {thing}",
      "{A} had some {thing}. {A.he} {thing.got} {b} more and now has {a}. How many {thing} did {A} have at first?",
      "{A} has {b} {thing}. {A.he} (wants|needs) {a} {thing}. How many more {thing} does {A} need?",
      "{A} had {b} {thing}. After {A.his} {kin} gave {A.him} some more, {A} has {a}. How many {thing} did {A} get?",
      "{A} had {a} {thing}. {A.he} {thing.lost} some of them. Now {A.he} has {b} left. "
          "How many {thing} are gone?",
      "{A} and {B} have {a} {thing} <total>. {b} of them are {B}'s. How many {thing} does {A} have?",
      "{A} has {a} {thing}. {b} of them are {color} and the rest are {color2}. How many {color2} {thing} are there?"),
    S("a-b {spot}",
      "There were {b} {spot} {spot.place}. Some more {spot.come}. Now there are {a}. How many {spot} came?",
      "There were {a} {spot} {spot.place}. Some of them {spot.go}. Now there are {b}. How many are gone?"),
    S("a+b {thing}",
      "{A} had some {thing}. <loss>. Now {A.he} has {a} left. How many {thing} did {A} have (at first|before)?",
      "{A} {thing.lost} {b} {thing}. {A.he} still has {a}. How many {thing} did {A} (start with|have at first)?",
      "{A} needs {b} more {thing} to have as many as {B}. {A} has {a} {thing}. How many {thing} does {B} have?"),
    # Two people or two kinds are compared.
    S("a-b {thing}",
      "{A} has {a} {thing}. {B} has {b} {thing}. How many more {thing} does {A} have than {B}?",
      "{B} {thing.got} {b} {thing} and {A} {thing.got} {a}. How many more {thing} than {B} did {A} get?",
      "{A} <had> {a} {thing} and {b} {thing2}. How many more {thing} than {thing2} are there?",
      "There are {b} {thing2} and {a} {thing} on the table. How many fewer {thing2} are there than {thing}?",
      "{A} {thing.got} {a} {thing} on {day} and {b} on {day2}. How many more did {A.he} get on {day}?"),
    S("a+b {thing}",
      "{A} has {a} {thing}. {B} has {b} more {thing} than {A}. How many {thing} does {B} have?",
      "{B} {thing.got} {b} more {thing} than {A}. {A} {thing.got} {a}. How many {thing} did {B} get?"),
    S("a-b {thing}",
      "{A} has {a} {thing}. {B} has {b} fewer {thing} than {A}. How many {thing} does {B} have?",
      "{A} has {b} more {thing} than {B}. {A} has {a} {thing}. How many {thing} does {B} have?"),
    S("a+b {thing}; r1+c {thing}",
      "{A} {thing.got} {a} {thing} on {day}, {b} on {day2} and {c} on {day3}. <ask_total>",
      "{A} has {a} {thing}, {B} has {b} and {C} has {c}. <ask_total>",
      "There are {a} {color} {thing}, {b} {color2} {thing} and {c} {color3} {thing} in a {box.one}. <ask_total>"),
    S("a+b",
      "{A} {thing.got} {a} {thing} and {b} {thing2}. How many things does {A} have <total>?",
      "There are {a} {thing} and {b} {thing2} in the {box.one}. How many things are in the {box.one}?",
      "{A} counted {a} {color} {thing} and {b} {color2} {thing}. How many {thing} did {A.he} count <total>?"),
    # Equal groups.
    S("a*b {holder.of}",
      "There are {a} {holder} with {b} {holder.of} in each {holder.one}. How many {holder.of} are there <total>?",
      "Each {holder.one} has {b} {holder.of}. How many {holder.of} are there in {a} {holder}?",
      "{A} has {a} {holder}. Each {holder.one} has {b} {holder.of}. What is the total number of {holder.of}?",
      "There are {b} {holder.of} in (each|every|one) {holder.one}. How many {holder.of} are in {a} {holder}?",
      a=_FEW),
    S("a*b {thing}",
      "{A} has {a} {box} of {thing}. There are {b} {thing} in each {box.one}. How many {thing} does {A} have <total>?",
      "{A} bought {a} {box} of {thing} with {b} {thing} in each {box.one}. <ask_now>",
      "{a} {friend} have {b} {thing} each. How many {thing} do they have <total>?",
      "{A} gave {b} {thing} to each of {a} {friend}. How many {thing} did {A} give away?",
      "{A} needs {b} {thing} for each {friend.one}. There are {a} {friend}. How many {thing} does {A} need?",
      a=_FEW),
    S("a*b {thing}",
      "{A} has {a} {thing}. {B} has {b} times as many {thing} as {A}. How many {thing} does {B} have?",
      "{B} {thing.got} {b} times as many {thing} as {A}. {A} {thing.got} {a}. How many {thing} did {B} get?",
      b=(2, 10), a=_SOME),
    S("a/b {thing}",
      "{A} has {a} {thing}. {A.he} shares them <equally> among {b} {friend}. <ask_each>",
      "{b} {friend} share {a} {thing} <equally>. <ask_each>",
      "{A} wants to split {a} {thing} <equally> into {b} {box}. How many {thing} go into each {box.one}?",
      "There are {a} {thing} in {b} {box}, the same number in each. How many {thing} are in each {box.one}?",
      "If {A} puts {a} {thing} <equally> in {b} {box}, how many {thing} will be in each {box.one}?",
      "{A} divides {a} {thing} into {b} equal groups. How many {thing} are in each group?",
      **_SHARE),
    S("a/b {box}",
      "{A} has {a} {thing}. {A.he} puts {b} {thing} in each {box.one}. How many {box} does {A} (need|fill)?",
      "{A} packs {a} {thing} into {box}. Each {box.one} holds {b}. How many {box} are needed?",
      "If {b} {thing} fit in one {box.one}, how many {box} does {A} need for {a} {thing}?",
      **_SHARE),
    S("a/b groups",
      "{A} puts {a} {thing} into groups of {b}. How many groups are there?",
      "There are {a} {friend} in the school. They make teams of {b}. How many teams are there?",
      **_SHARE),
    S("a/b {holder}",
      "There are {a} {holder.of}. Each {holder.one} has {b} of them. How many {holder} are there?",
      "{b} {holder.of} fit in a {holder.one}. How many {holder} are needed for {a} {holder.of}?",
      **_SHARE),
    S("a/b {thing}",
      "{A} has {a} {thing}. That is {b} times as many as {B} has. How many {thing} does {B} have?",
      "{A} {thing.got} {b} times as many {thing} as {B}. {A} {thing.got} {a}. How many {thing} did {B} get?",
      **_SHARE),
    # Money.
    S("a*b dollars",
      "One {thing.one} costs {b} dollars. How much do {a} {thing} cost?",
      "{A} buys {a} {thing} for ${b} each. <ask_paid>",
      "{A} sells {a} {thing} for {b} dollars each. How much money does {A} (make|earn)?",
      "A {thing.one} costs ${b}. {A} wants to buy {a} {thing}. How much money does {A.he} need?",
      "{A} earns ${b} for {job}, for each {job.each}. How much does {A} earn for {a}?",
      a=_FEW, b=_SOME),
    S("a/b dollars",
      "{A} paid {a} dollars for {b} {thing}. How much did each {thing.one} cost?",
      "{b} {thing} cost ${a}. How much does one {thing.one} cost?",
      "{A} sold {b} {thing} for {a} dollars <total>. What was the price of one {thing.one}?",
      **_SHARE),
    S("a/b {thing}",
      "A {thing.one} costs {b} dollars. {A} has {a} dollars. How many {thing} can {A} buy?",
      "{A} spent ${a} on {thing}. Each {thing.one} cost ${b}. How many {thing} did {A} buy?",
      "How many {thing} can {A} buy with {a} dollars if each one costs {b} dollars?",
      **_SHARE),
    S("a-b dollars",
      "{A} had {a} dollars. {A.he} spent {b} dollars<where>. <ask_dollars>",
      "{A} has ${a}. {A.he} pays ${b} for {bought}. <ask_dollars>",
      "{A} wants to buy a {thing.one} that costs {a} dollars. {A.he} has {b} dollars. How much more does {A} need?",
      "{A} has {b} dollars left. At first {A.he} had {a} dollars. How much did {A} spend?",
      "{A} has ${a} and {B} has ${b}. How much more money does {A} have than {B}?"),
    S("a+b dollars",
      "{A} paid ${a} for {bought} and ${b} for {bought2}. <ask_paid>",
      "{A} spent {a} dollars on {bought} and {b} dollars on {bought2}. <ask_paid>",
      "{A} has {a} dollars. {A.he} earns {b} dollars by {job}. How much money does {A} have now?"),
    S("a+b dollars",
      "{A} paid ${a} for {bought} and ${b} for {bought2}. <ask_paid>",
      "At the {shop} {A} spent ${a} on {bought} and ${b} on {bought2}. <ask_paid>", cents="ab"),
    S("a-b dollars",
      "{A} has ${a}. {A.he} spends ${b} on {bought}. <ask_dollars>",
      "{A} bought {bought} for ${a} and {bought2} for ${b}. How much more was {bought} than {bought2}?", cents="ab"),
    S("b*c dollars; a-r1 dollars",
      "{A} has {a} dollars. {A.he} buys {b} {thing} for {c} dollars each. <ask_dollars>",
      "Each {thing.one} costs ${c}. {A} had ${a} and bought {b} {thing}. <ask_dollars>",
      b=_FEW, c=_FEW, a=(30, 200)),
    S("a-b dollars; r1/c {thing}",
      "{A} has {a} dollars and spends {b} on {bought}. With the rest {A.he} buys {thing} for {c} dollars each. "
          "How many {thing} can {A.he} buy?",
      "{A} had ${a}. {A.he} paid ${b} for {bought}. How many {thing} can {A.he} still buy if each costs ${c}?",
      a=(10, 99), c=(2, 9)),
    S("a*b dollars; c*d dollars; r1+r2 dollars",
      "{A} buys {a} {thing} for ${b} each and {c} {thing2} for ${d} each. <ask_paid>",
      "A {thing.one} costs ${b} and a {thing2.one} costs ${d}. {A} buys {a} {thing} and {c} {thing2}. <ask_paid>",
      a=_FEW, b=_FEW, c=_FEW, d=_FEW),
    # So much in a unit of time.
    S("a*b {rate.of}",
      "{A} {rate} {a} {rate.of} (a|each|every|per) {rate.one}. How many {rate.of} is that in {b} {rate.per}?",
      "{A} {rate.did} {a} {rate.of} every {rate.one} for {b} {rate.per}. How many {rate.of} is that <total>?",
      "If {A} {rate} {a} {rate.of} a {rate.one}, how many {rate.of} does {A.he} {rate.do} in {b} {rate.per}?",
      a=_SOME, **_HOURS),
    S("a/b {rate.of}",
      "{A} {rate.did} {a} {rate.of} in {b} {rate.per}, the same number each {rate.one}. "
          "How many {rate.of} is that (a|per) {rate.one}?",
      "In {b} {rate.per} {A} {rate.did} {a} {rate.of}. How many {rate.of} did {A.he} {rate.do} each {rate.one}?",
      **_SHARE),
    S("a/b {rate.per}",
      "{A} {rate} {b} {rate.of} (a|each|per) {rate.one}. How many {rate.per} does {A.he} need for {a} {rate.of}?",
      "{A} wants to {rate.do} {a} {rate.of}. {A.he} {rate} {b} a {rate.one}. How many {rate.per} will it take?",
      **_SHARE),
    S("a*b {rate.of}; r1-c {rate.of}",
      "{A} {rate} {a} {rate.of} a {rate.one} for {b} {rate.per}. {B} {rate} {c} {rate.of} in that time. "
          "How many more {rate.of} is that for {A}?", a=_FEW, b=_FEW, c=_SOME),
    S("a*b {rate.of}; r1+c {rate.of}",
      "{A} {rate.did} {a} {rate.of} every {rate.one} for {b} {rate.per} and then {c} more. "
          "How many {rate.of} is that <total>?", a=_FEW, b=_FEW, c=_SOME),
    # Time, age, length, amounts.
    S("a*60 minutes", "{A} {rate.did} {rate.of} for {a} hours. How many minutes is that?",
      "A trip takes {a} hours. How many minutes does it take?", "How many minutes are there in {a} hours?", a=(2, 24)),
    S("a*7 days", "{A} stayed with {A.his} {kin} for {a} weeks. How many days is that?",
      "School is out in {a} weeks. How many days is that?", "How many days are there in {a} weeks?", a=(2, 40)),
    S("a*12", "{A} bought {a} dozen eggs. How many eggs did {A.he} buy?", "How many months are there in {a} years?",
      "There are {a} dozen {thing} in a {box.one}. How many {thing} are in the {box.one}?", a=(2, 30)),
    S("a-b years", "{A} is {a} years old. {B} is {b} years younger. How old is {B}?",
      "{A} is {a} years old and {B} is {b} years old. How many years older is {A}?", a=(6, 80), b=(2, 40)),
    S("a+b years", "{A} is {a} years old. How old will {A.he} be in {b} years?",
      "{A} is {a} years old. {A.his} {kin} is {b} years older. How old is {A.his} {kin}?", a=(3, 50), b=(2, 40)),
    S("a+b {length}", "{A} walked {a} {length} and then ran {b} {length}. How far did {A} go <total>?",
      "One {long} is {a} {length} long and another is {b} {length} long. How long are they together?"),
    S("a-b {length}", "A {long} is {a} {length} long. {A} cuts off {b} {length}. How long is the rest?",
      "{A} ran {a} {length} and {B} ran {b} {length}. How much farther did {A} run?",
      "{A} has to go {a} {length}. {A.he} has gone {b} {length}. How far does {A.he} still have to go?"),
    S("a/b {length}", "{A} cuts a {long} of {a} {length} into {b} equal pieces. How long is each piece?", **_SHARE),
    S("a/b pieces", "A {long} is {a} {length} long. {A} cuts it into pieces of {b} {length}. How many are there?",
      **_SHARE),
    S("a+b {measure}", "{A} uses {a} {measure} of {fluid} and {b} {measure} of {fluid2}. How many {measure} is that?",
      "A tank has {a} {measure} of {fluid}. {A} adds {b} {measure}. How many {measure} are in the tank now?"),
    S("a-b {measure}", "There are {a} {measure} of {fluid}. {A} uses {b} {measure}. How many {measure} are left?",
      "A recipe needs {a} {measure} of {fluid}. {A} has put in {b}. How many more {measure} does {A} need?"),
    # Two things happen.
    S("a+b {thing}; r1-c {thing}",
      "{A} <had> {a} {thing}. <gain>. Then {A.he} {thing.lost} {c}. <ask_left>",
      "{A} {thing.got} {a} {thing} on {day} and {b} on {day2}. {A.he} gave {c} of them to {B}. <ask_left>",
      "There are {a} {color} {thing} and {b} {color2} {thing}. {A} {thing.lost} {c} of them. <ask_left>"),
    S("a-b {thing}; r1+c {thing}",
      "{A} <had> {a} {thing}. <loss>. <later> {A.he} {thing.got} {c} more. <ask_now>",
      "{A} had {a} {thing}. If {A.he} {thing.lost} {b} of them and then {thing.got} {c} more, how many {thing} would "
          "{A.he} have?"),
    S("a+b {spot}; r1-c {spot}",
      "There are {a} {spot} {spot.place}. {b} more {spot.come}. Then {c} {spot.go}. How many {spot} are there now?"),
    S("a-b {spot}; r1+c {spot}",
      "There are {a} {spot} {spot.place}. {b} of them {spot.go} and {c} others {spot.come}. How many are there now?"),
    S("a-b {thing}; r1-c {thing}",
      "{A} <had> {a} {thing}. {A.he} gave {b} to {B} and {c} to {C}. <ask_left>",
      "{A} had {a} {thing}. {A.he} {thing.lost} {b} on {day} and {c} on {day2}. <ask_left>"),
    S("a*b {thing}; r1+c {thing}",
      "{A} has {a} {box} with {b} {thing} in each and {c} more {thing}. <ask_now>",
      "{A} bought {a} {box} of {thing}, {b} in each {box.one}. {A.he} already had {c} {thing}. <ask_now>",
      a=_FEW, b=_FEW, c=_SOME),
    S("a*b {thing}; r1-c {thing}",
      "{A} had {a} {box} of {thing} with {b} in each. {A.he} {thing.lost} {c} {thing}. <ask_left>",
      "There are {b} {thing} in each of {a} {box}. {A} takes {c} {thing}. <ask_left>",
      a=_FEW, b=_FEW, c=_SOME),
    S("a+b {thing}; r1*c {thing}",
      "{a} {friend} and {b} grown-ups each bring {c} {thing}. How many {thing} do they bring <total>?",
      "{A} has {a} {color} {box} and {b} {color2} {box}. Each {box.one} has {c} {thing}. <ask_now>",
      "{A} played {a} games in the morning and {b} in the afternoon. {A.he} won {c} {thing} in each. "
          "How many {thing} did {A} win?",
      a=_FEW, b=_FEW, c=_FEW),
    S("a-b {thing}; r1*c {thing}",
      "{A} had {a} {box} of {thing}, but {b} {box} were lost. Each {box.one} has {c} {thing}. <ask_left>",
      "{a} {friend} wanted to play, but {b} of them went home. If the others have {c} {thing} each, how many {thing} "
          "do they have?",
      a=(5, 20), b=_FEW, c=_FEW),
    S("a+b {thing}; r1/c {thing}",
      "{A} has {a} {thing} and {B} has {b}. They share them <equally> among {c} {friend}. <ask_each>",
      "{A} {thing.got} {a} {thing} and then {b} more. {A.he} puts them <equally> in {c} {box}. "
          "How many {thing} are in each {box.one}?", c=(2, 12)),
    S("a+b {thing}; r1/c {box}",
      "{A} has {a} {color} {thing} and {b} {color2} {thing}. {c} fit in a {box.one}. How many {box} does {A} need?",
      "{A} {thing.got} {a} {thing} and {B} {thing.got} {b}. They put {c} in each {box.one}. "
          "How many {box} do they fill?", c=(2, 12)),
    S("a-b {thing}; r1/c {thing}",
      "{A} had {a} {thing}. {A.he} kept {b} and shared the rest <equally> among {c} {friend}. <ask_each>",
      "{A} {thing.got} {a} {thing} but {thing.lost} {b}. The rest go <equally> into {c} {box}. "
          "How many {thing} are in each {box.one}?", c=(2, 12)),
    S("a-b {thing}; r1/c {box}",
      "{A} had {a} {thing}. <loss>. The rest go into {box} of {c}. How many {box} does {A.he} fill?", c=(2, 12)),
    S("a*b {thing}; a+r1 {thing}",
      "{A} has {a} {thing}. {B} has {b} times as many. How many {thing} do they have <total>?", a=_SOME, b=(2, 10)),
    S("a+b {thing}; a+r1 {thing}",
      "{A} has {a} {thing}. {B} has {b} more {thing} than {A}. How many {thing} do they have <total>?"),
    S("a-b {thing}; a+r1 {thing}",
      "{A} has {a} {thing}. {B} has {b} fewer {thing} than {A}. How many {thing} do they have <total>?"),
    S("a*b {holder.of}; r1/c",
      "There are {a} {holder} with {b} {holder.of} each. If they are put into {c} equal groups, how many are in each?",
      a=_FEW, b=_FEW, c=(2, 9)),
    S("a*b {holder.of}; r1-c {holder.of}",
      "There are {a} {holder} with {b} {holder.of} in each. {c} {holder.of} are gone. How many {holder.of} are left?",
      a=_FEW, b=_FEW),
    # Three and four.
    S("a+b {thing}; r1-c {thing}; r2/d {thing}",
      "{A} has {a} {thing}. <gain>. {A.he} keeps {c} and gives the rest <equally> to {d} {friend}. <ask_each>",
      d=(2, 9)),
    S("a*b {thing}; r1+c {thing}; r2-d {thing}",
      "{A} has {a} {box} with {b} {thing} in each. {A.he} {thing.got} {c} more and {thing.lost} {d}. <ask_left>",
      a=_FEW, b=_FEW),
    S("a*b dollars; r1+c dollars; r2-d dollars",
      "{A} sold {a} {thing} for {b} dollars each. {A.he} already had {c} dollars. {A.he} spent {d} dollars on "
          "{bought}. <ask_dollars>", a=_FEW, b=_FEW),
    S("a*b {thing}; c*d {thing}; r1-r2 {thing}",
      "{A} has {a} {box} with {b} {thing} each. {B} has {c} {box} with {d} {thing} each. How many more does {A} have?",
      a=_FEW, b=_FEW, c=_FEW, d=_FEW),
    S("a*b {rate.of}; c*d {rate.of}; r1+r2 {rate.of}",
      "{A} {rate} {a} {rate.of} a {rate.one} for {b} {rate.per}. {B} {rate} {c} a {rate.one} for {d} {rate.per}. "
          "How many {rate.of} is that <total>?", a=_FEW, b=_FEW, c=_FEW, d=_FEW),
    S("a*b dollars; c*d dollars; r1+r2 dollars; 500-r3 dollars",
      "{A} has 500 dollars. {A.he} buys {a} {thing} for ${b} each and {c} {thing2} for ${d} each. <ask_dollars>",
      a=_FEW, b=_FEW, c=_FEW, d=_FEW),
    S("a*b {thing}; a+r1 {thing}; r2-c {thing}; r3/d {thing}",
      "{A} has {a} {thing} and {B} has {b} times as many. They give away {c} and share the rest <equally> among {d} "
          "{friend}. <ask_each>", a=_SOME, b=(2, 6), d=(2, 9)),
)

# Only in the test split: other wordings of the same arithmetic.
TEST_ONLY = (
    S("a+b {thing}", "{A} counts {a} {thing} in one {box.one} and {b} in another. What do they add up to?",
      "After {A} put {b} {thing} into a {box.one} that held {a}, how many {thing} did it hold?"),
    S("a-b {thing}", "Of {a} {thing}, {b} belong to {A}. How many do not?",
      "{A} began the day with {a} {thing} and ended it with {b}. By how many did they become fewer?"),
    S("a*b {thing}", "On a table stand {a} {box}, each of them full with {b} {thing}. Count the {thing}.",
      "{A} lays out {thing} in {a} lines of {b}. How many {thing} has {A.he} laid out?", a=_FEW),
    S("a/b {thing}", "{A} deals {a} {thing} to {b} {friend} until none is left. How many does one of them hold?",
      "When {a} {thing} are laid in {b} equal lines, how many {thing} make a line?", **_SHARE),
    S("a+b {thing}; r1-c {thing}", "{A} brings {a} {thing} and {B} brings {b}. {c} turn out to be bad. "
      "How many good {thing} are there?"),
    S("a*b {thing}; r1-c {thing}", "{A} fills {a} {box} with {b} {thing} each, but {c} {thing} fall out. "
      "How many {thing} stay in?", a=_FEW, b=_FEW, c=_SOME),
    S("a*b dollars; r1-c dollars", "For {a} days {A} earns {b} dollars a day. {A.his} lunches cost {c} dollars. "
      "What is left for {A.him}?", a=_FEW),
)
# fmt: on

"""Problems about texts; each function is a reference solution, and its docstring is the problem's text."""

from code_problems.told import called


@called(("aabccc",), ("",), ("z",), ("abab",), ("xxxxy",))
def run_lengths(text):
    """Write a function that returns the runs of equal letters in a text as a list of pairs (letter,
    length)."""
    found = []
    for letter in text:
        if found and found[-1][0] == letter:
            found[-1] = (letter, found[-1][1] + 1)
        else:
            found.append((letter, 1))
    return found


@called(("the cat sat", 2), ("a", 5), ("one two three", 1), ("", 3), ("red green blue", 4))
def rotate_words(text, by):
    """Write a function that moves the words of a text so many places to the right; those that fall off
    the end come back at the front. Words are divided by single spaces."""
    words = text.split()
    if not words:
        return ""
    by %= len(words)
    return " ".join(words[len(words) - by :] + words[: len(words) - by])


@called(("hello",), ("rhythm",), ("Queue",), ("",), ("AEIou",))
def vowel_places(text):
    """Write a function that returns the places of all vowels (a, e, i, o, u, small or capital) in a text,
    counted from 1."""
    return [at for at, letter in enumerate(text, 1) if letter.lower() in "aeiou"]


@called(("abc", 1), ("xyz", 3), ("Hi there!", 13), ("", 4), ("Zebra", -1))
def shifted(text, by):
    """Write a function that moves each letter of a text so many places on in the alphabet, from z on to
    a; capitals stay capitals, and all else stays as it is."""
    found = ""
    for letter in text:
        if "a" <= letter <= "z":
            found += chr((ord(letter) - 97 + by) % 26 + 97)
        elif "A" <= letter <= "Z":
            found += chr((ord(letter) - 65 + by) % 26 + 65)
        else:
            found += letter
    return found


@called(("(a(b)c)",), ("(()",), (")(",), ("",), ("((x)(y(z)))",))
def bracket_depth(text):
    """Write a function that returns how deep the round brackets of a text are nested, or -1 where they do not
    match."""
    depth = deepest = 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if depth < 0:
            return -1
        deepest = max(deepest, depth)
    return deepest if depth == 0 else -1


@called(("listen", "silent"), ("apple", "pale"), ("", ""), ("aab", "abb"), ("Tea", "ate"))
def letters_to_change(one, other):
    """Write a function that counts how many letters have to be added to two texts, both together, until
    each has the same letters as often as the other. Small and capital letters are different."""
    both = set(one) | set(other)
    return sum(abs(one.count(letter) - other.count(letter)) for letter in both)


@called(("a-b-c", "-"), ("x", ","), ("", ";"), ("1,,2", ","), ("--", "-"))
def pieces_reversed(text, mark):
    """Write a function that turns the pieces of a text around that stand between a mark, and keeps the
    marks: the first piece comes last. Empty pieces count."""
    return mark.join(reversed(text.split(mark)))


@called(("level",), ("abca",), ("abc",), ("xyzz",), ("racecars",))
def almost_mirrored(text):
    """Write a function that tells whether a text reads the same backwards, or would if one letter were
    left out."""

    def mirrored(part):
        return part == part[::-1]

    return mirrored(text) or any(mirrored(text[:at] + text[at + 1 :]) for at in range(len(text)))


@called(("the rain in spain",), ("a",), ("to be or not to be",), ("",), ("b a b c a b",))
def favourite_word(text):
    """Write a function that returns the most frequent word of a text, of several the one that comes first
    in the alphabet, and '' for a text without words. Words are divided by spaces."""
    words = text.split()
    return min(words, key=lambda word: (-words.count(word), word)) if words else ""


@called(("helloWorld",), ("abc",), ("parseHTML",), ("",), ("aBC",))
def snake(name):
    """Write a function that puts an underscore in front of each capital letter of a name and makes it small:
    'helloWorld' becomes 'hello_world'."""
    return "".join("_" + letter.lower() if letter.isupper() else letter for letter in name)


@called(("kitten", "sitting"), ("", "abc"), ("flaw", "lawn"), ("same", "same"), ("ab", "ba"))
def edit_distance(one, other):
    """Write a function that returns the least number of letters to insert, delete or replace until the
    first text is the second."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        new = [i]
        for j, b in enumerate(other, 1):
            new.append(min(row[j] + 1, new[-1] + 1, row[j - 1] + (a != b)))
        row = new
    return row[-1]


@called(("3+4*2",), ("10",), ("2*3*4",), ("1+1+1",), ("7*0+9",))
def sums_and_products(text):
    """Write a function that works out a text of whole numbers with + and * between them; products come before
    sums."""
    total = 0
    for part in text.split("+"):
        product = 1
        for factor in part.split("*"):
            product *= int(factor)
        total += product
    return total


@called(("banana", "an"), ("aaaa", "aa"), ("abc", "d"), ("", "x"), ("mississippi", "issi"))
def overlapping_count(text, part):
    """Write a function that counts at how many places of a text a part begins; the places may overlap."""
    return sum(text.startswith(part, at) for at in range(len(text)))


@called((["flower", "flow", "flight"],), (["a"],), (["x", "y"],), ([],), (["same", "same"],))
def shared_beginning(words):
    """Write a function that returns the longest text that all words of a list begin with, '' for an empty
    list."""
    if not words:
        return ""
    first = min(words, key=len)
    while not all(word.startswith(first) for word in words):
        first = first[:-1]
    return first


@called(("abc", "ahbgdc"), ("axc", "ahbgdc"), ("", "abc"), ("aa", "a"), ("bd", "abcd"))
def is_hidden_in(small, large):
    """Write a function that tells whether the letters of the first text stand in the second in the same
    order, with any letters between them."""
    at = 0
    for letter in large:
        if at < len(small) and small[at] == letter:
            at += 1
    return at == len(small)


@called(("ab12cd3",), ("none",), ("007",), ("",), ("9a8b7",))
def numbers_in(text):
    """Write a function that returns the whole numbers that stand in a text as runs of digits, in order,
    as numbers."""
    found, run = [], ""
    for letter in text + " ":
        if letter.isdigit():
            run += letter
        elif run:
            found.append(int(run))
            run = ""
    return found


@called(("hello world", 5), ("a bb ccc dddd", 6), ("", 4), ("one", 10), ("to be or not to be", 5))
def wrapped(text, width):
    """Write a function that puts the words of a text into lines, as many words as fit into the width with
    single spaces between them, and returns the list of lines. No word is longer than the width."""
    lines = []
    for word in text.split():
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += " " + word
        else:
            lines.append(word)
    return lines


@called(("abcabcbb",), ("bbbb",), ("",), ("pwwkew",), ("abcdef",))
def longest_without_repeat(text):
    """Write a function that returns the length of the longest part of a text in which no letter stands
    twice."""
    begin = best = 0
    last = {}
    for at, letter in enumerate(text):
        if letter in last and last[letter] >= begin:
            begin = last[letter] + 1
        last[letter] = at
        best = max(best, at - begin + 1)
    return best


@called(("aAbB",), ("",), ("XyZ",), ("123a",), ("Hello World",))
def case_counts(text):
    """Write a function that returns a dict with the keys 'small', 'capital' and 'other' that says how
    many signs of a text are small letters, capital letters, and anything else."""
    found = {"small": 0, "capital": 0, "other": 0}
    for letter in text:
        found["small" if letter.islower() else "capital" if letter.isupper() else "other"] += 1
    return found


@called(("a1b2",), ("x3",), ("",), ("q0w2",), ("z9",))
def unpacked(text):
    """Write a function for a text in which each letter is followed by one digit: return the text with
    each letter as often as its digit says."""
    return "".join(text[at] * int(text[at + 1]) for at in range(0, len(text), 2))


@called(("SOS",), ("E",), ("",), ("TEST",), ("MOST",))
def morse(text):
    """Write a function that writes a text of the letters E, M, O, S and T in Morse code (E is '.', M
    '--', O '---', S '...', T '-'), with one space between two letters."""
    code = {"E": ".", "M": "--", "O": "---", "S": "...", "T": "-"}
    return " ".join(code[letter] for letter in text)


@called(("radar level noon cat",), ("dog",), ("",), ("a bb cdc",), ("stats tool refer",))
def mirrored_words(text):
    """Write a function that returns the words of a text that read the same backwards and have two letters
    or more, in order."""
    return [word for word in text.split() if len(word) > 1 and word == word[::-1]]


@called(("10.0.0.1",), ("256.1.1.1",), ("1.2.3",), ("01.2.3.4",), ("192.168.1.255",))
def is_address(text):
    """Write a function that tells whether a text is an IPv4 address: four whole numbers from 0 to 255
    with dots between them, none with a zero in front of another digit."""
    parts = text.split(".")
    return len(parts) == 4 and all(
        part.isdigit() and int(part) < 256 and part == str(int(part)) for part in parts
    )


@called(("abcd", 2), ("hello", 3), ("", 2), ("paypalishiring", 4), ("xy", 1))
def zigzag(text, rows):
    """Write a function that writes a text down and up again over so many rows, one letter in a row at
    each step, and returns the letters row by row as one text."""
    if rows == 1:
        return text
    lines = [""] * rows
    at, step = 0, 1
    for letter in text:
        lines[at] += letter
        if at + step not in range(rows):
            step = -step
        at += step
    return "".join(lines)

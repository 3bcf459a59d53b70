"""Problems about lists, tables and graphs; each function is a reference solution, and its docstring is the
problem's text."""

from code_problems.told import called


@called(([3, 1, 2],), ([],), ([5, 5],), ([9, 7, 8, 1],), ([1, 2, 3],))
def inversions(values):
    """Write a function that counts the pairs of places in a list of which the earlier one holds the
    larger number."""
    return sum(a > b for at, a in enumerate(values) for b in values[at + 1 :])


@called(([[1, 2], [3, 4]],), ([[5]],), ([[1, 2, 3], [4, 5, 6]],), ([[1], [2], [3]],), ([[0, 9], [8, 7]],))
def turned_right(table):
    """Write a function that turns a table, a list of rows of equal length, by a quarter to the right."""
    return [list(column) for column in zip(*table[::-1], strict=True)]


@called(([1, 2, 3, 4, 5], 2), ([], 3), ([7, 8], 5), ([1, 2, 3, 4], 4), ([4, 6, 1], 1))
def window_sums(values, size):
    """Write a function that returns the sums of all runs of so many neighbours in a list, from left to
    right."""
    return [sum(values[at : at + size]) for at in range(len(values) - size + 1)]


@called(([1, -2, 3, 4, -1],), ([-5, -2],), ([2],), ([4, -1, 4],), ([-1, 5, -9, 6],))
def best_stretch(values):
    """Write a function that returns the largest sum that neighbours in a list have, at least one of them."""
    best = here = values[0]
    for value in values[1:]:
        here = max(here + value, value)
        best = max(best, here)
    return best


@called(([[1, 4], [3, 6], [8, 9]],), ([],), ([[5, 7], [1, 2]],), ([[1, 10], [2, 3]],), ([[1, 2], [2, 3]],))
def joined_ranges(ranges):
    """Write a function that joins ranges [first, last] that share a number, and returns them as lists in
    order."""
    found = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1]:
            found[-1][1] = max(found[-1][1], last)
        else:
            found.append([first, last])
    return found


@called(([1, 2, 2, 3, 3, 3],), ([],), ([4],), ([1, 1, 2, 2],), ([7, 8, 7, 9, 7],))
def by_frequency(values):
    """Write a function that returns the different numbers of a list, the most frequent first, of equally
    frequent ones the smaller first."""
    return sorted(set(values), key=lambda value: (-values.count(value), value))


@called(([5, 3, 8, 1], 2), ([2, 2, 1], 1), ([9], 1), ([4, 7, 7, 2], 3), ([10, -1, 6], 2))
def kth_smallest(values, k):
    """Write a function that returns the k-th smallest number of a list, counted from 1; equal numbers
    count as often as they stand there."""
    return sorted(values)[k - 1]


@called(([2, 7, 11, 15], 9), ([1, 2], 10), ([3, 3], 6), ([], 0), ([5, -2, 9, 4], 2))
def pair_with_sum(values, total):
    """Write a function that returns the places (i, j), i < j, counted from 0, of two numbers in a list
    with a given sum: those with the smallest j, then with the smallest i. None where there are none."""
    for j in range(len(values)):
        for i in range(j):
            if values[i] + values[j] == total:
                return i, j
    return None


@called(([1, [2, [3, []]]],), ([],), ([[[]]],), ([1, 2],), ([[4, 5], [6, [7, [8]]]],))
def flattened(nested):
    """Write a function that returns the numbers of a list that may hold lists, which may hold lists
    again, as one flat list, in order."""
    found = []
    for one in nested:
        if isinstance(one, list):
            found += flattened(one)
        else:
            found.append(one)
    return found


@called(([1, 3, 5], [2, 3, 6]), ([], [1]), ([4], []), ([1, 1], [1]), ([0, 9], [5, 7, 8]))
def merged(one, other):
    """Write a function that merges two lists in ascending order into one in ascending order; equal
    numbers stay."""
    found, i, j = [], 0, 0
    while i < len(one) and j < len(other):
        if one[i] <= other[j]:
            found.append(one[i])
            i += 1
        else:
            found.append(other[j])
            j += 1
    return found + one[i:] + other[j:]


@called(([[1, 2], [3]],), ([],), ([[5], [], [6, 7]],), ([[1, 1, 1]],), ([[2, 4], [6, 8], [10]],))
def row_means(rows):
    """Write a function that returns the mean of each row of a list of rows; an empty row has the mean 0.0."""
    return [sum(row) / len(row) if row else 0.0 for row in rows]


@called(({"a": 1, "b": 2},), ({},), ({"x": 1, "y": 1, "z": 2},), ({"k": 5},), ({"p": 3, "q": 3},))
def grouped_keys(values):
    """Write a function that turns a dict around: each value becomes a key, with the sorted list of the
    keys that had it."""
    found = {}
    for key in sorted(values):
        found.setdefault(values[key], []).append(key)
    return found


@called((["ab", "c", "def"],), ([],), (["x", "yy", "zz"],), ([""],), (["one", "two", "three"],))
def longest_words(words):
    """Write a function that returns the set of all words of a list that no other word there is longer
    than."""
    most = max(map(len, words), default=0)
    return {word for word in words if len(word) == most}


@called(
    ([[0, 1], [1, 2], [3, 4]], 5),
    ([], 3),
    ([[0, 1], [1, 0]], 2),
    ([[2, 2]], 4),
    ([[0, 3], [3, 1], [1, 2]], 4),
)
def islands(links, count):
    """Write a function for count places, numbered from 0, and links between two of them: return how many
    groups of places there are that hang together."""
    group = list(range(count))
    for a, b in links:
        old, new = group[a], group[b]
        group = [new if one == old else one for one in group]
    return len(set(group))


@called(
    ([[1, 3, 1], [1, 5, 1], [4, 2, 1]],),
    ([[7]],),
    ([[1, 2], [1, 1]],),
    ([[1, 9, 1]],),
    ([[2, 2, 2], [2, 2, 2]],),
)
def cheapest_way(table):
    """Write a function that returns the smallest sum of numbers on a way through a table from its upper
    left to its lower right corner, going right or down."""
    best = {}
    for i, row in enumerate(table):
        for j, value in enumerate(row):
            before = [best[place] for place in ((i - 1, j), (i, j - 1)) if place in best]
            best[i, j] = value + (min(before) if before else 0)
    return best[len(table) - 1, len(table[0]) - 1]


@called(([1, 2, 3, 4], 1), ([], 2), ([1], 7), ([5, 6, 7], 3), ([1, 2, 3, 4, 5], 2))
def every_other_dropped(values, times):
    """Write a function that drops every second number of a list, the second, the fourth and so on, and
    does so a given number of times."""
    for _ in range(times):
        values = values[::2]
    return values


@called(([10, 9, 2, 5, 3, 7],), ([],), ([1, 1, 1],), ([3, 2, 1],), ([0, 8, 4, 12, 2, 10],))
def rising_length(values):
    """Write a function that returns how many numbers can be picked from a list at the most, in their
    order, so that each is larger than the one before it."""
    best = []
    for at, value in enumerate(values):
        best.append(1 + max((best[i] for i in range(at) if values[i] < value), default=0))
    return max(best, default=0)


@called(([3, 4, 1, 1], 5), ([9], 5), ([], 3), ([1, 1, 1, 1, 1], 2), ([2, 3, 2, 3], 5))
def boxes_needed(weights, limit):
    """Write a function that puts things into boxes in their order: a thing goes into the last box where
    its weight still fits below or at the limit, else into a new box. Return the number of boxes; a thing
    that is heavier than the limit gets a box of its own."""
    boxes, load = 0, 0
    for weight in weights:
        if boxes and load + weight <= limit:
            load += weight
        else:
            boxes, load = boxes + 1, weight
    return boxes


@called(([1, 2, 3], [3, 2, 1]), ([0], [5]), ([], []), ([1, -1], [1, 1]), ([2, 0, 4], [1, 9, 2]))
def dot(one, other):
    """Write a function that multiplies the numbers of two lists of equal length place by place and adds
    up the products."""
    return sum(a * b for a, b in zip(one, other, strict=True))


@called(([1, 1], [1, 1]), ([1], [2, 3]), ([0, 1], [0, 1]), ([2, 0, 1], [1, 1]), ([5], [7]))
def polynomial_product(one, other):
    """Write a function that multiplies two polynomials, given by the lists of their coefficients, the
    constant one first, and returns the list of coefficients of the product."""
    found = [0] * (len(one) + len(other) - 1)
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            found[i + j] += a * b
    return found


@called(
    ([[1, 0], [0, 1]],),
    ([[2, 3], [4, 5]],),
    ([[7]],),
    ([[1, 2, 3], [4, 5, 6], [7, 8, 9]],),
    ([[0, 1], [1, 0]],),
)
def diagonals(table):
    """Write a function that returns a pair of sums for a square table: of the diagonal that falls from
    left to right, and of the other one."""
    n = len(table)
    return sum(table[i][i] for i in range(n)), sum(table[i][n - 1 - i] for i in range(n))


@called(("52CD+",), ("",), ("12+",), ("9CC4D",), ("5 2D+",))
def score(moves):
    """Write a function that reads a text sign by sign and keeps a list of points: a digit is added to the
    list, 'C' takes the last entry away, 'D' adds twice the last entry, '+' adds the sum of the last two;
    what cannot be done is left out, and so is every other sign. Return the sum of the list."""
    points = []
    for move in moves:
        if move.isdigit():
            points.append(int(move))
        elif move == "C" and points:
            points.pop()
        elif move == "D" and points:
            points.append(2 * points[-1])
        elif move == "+" and len(points) > 1:
            points.append(points[-1] + points[-2])
    return sum(points)


@called(([1, 2, 3, 4], 2), ([5], 3), ([], 1), ([1, 2, 3, 4, 5], 3), ([9, 8, 7], 1))
def dealt(cards, players):
    """Write a function that deals cards one by one to so many players in turn, and returns the list of
    what each player has."""
    return [cards[player::players] for player in range(players)]


@called(([4, 2, 9], 5), ([], 1), ([1, 2, 3], 0), ([7, 7], 7), ([10, 20, 15], 16))
def split_by(values, limit):
    """Write a function that returns a pair of lists: the numbers of a list that are below a limit, and
    the others, each in their order."""
    return [value for value in values if value < limit], [value for value in values if value >= limit]

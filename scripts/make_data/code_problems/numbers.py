"""Problems about numbers; each function is a reference solution, and its docstring is the problem's text."""

from code_problems.told import called


@called((0,), (7,), (100,), (-45,), (909,))
def digit_span(n):
    """Write a function that returns the difference between the largest and the smallest decimal digit of a
    whole number, whatever its sign."""
    digits = [int(digit) for digit in str(abs(n))]
    return max(digits) - min(digits)


@called((1,), (6,), (13,), (28,), (97,))
def steps_to_one(n):
    """Write a function that counts the steps until a positive whole number becomes 1, where a step halves
    an even number, and turns an odd number n into 3n + 1."""
    steps = 0
    while n != 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        steps += 1
    return steps


@called((10, 3), (0, 5), (255, 16), (31, 2), (80, 9))
def digits_in_base(n, base):
    """Write a function that returns the digits of a whole number n >= 0 in a base from 2 up, as a list of
    numbers, the most significant first. Zero has the one digit 0."""
    found = [n % base]
    while n >= base:
        n //= base
        found.append(n % base)
    return found[::-1]


@called((1,), (12,), (13,), (60,), (97,))
def proper_divisor_sum(n):
    """Write a function that adds up all divisors of a positive whole number that are smaller than the
    number."""
    return sum(d for d in range(1, n) if n % d == 0)


@called((0,), (5,), (16,), (255,), (1023,))
def longest_run_of_ones(n):
    """Write a function that returns the length of the longest run of ones in the binary form of a whole
    number n >= 0."""
    return max(len(run) for run in bin(n)[2:].split("0"))


@called((2,), (12,), (97,), (360,), (1024,))
def prime_powers(n):
    """Write a function that returns the prime factors of a whole number n >= 2 as a list of pairs (prime,
    exponent), the smallest prime first."""
    found = []
    p = 2
    while n > 1:
        count = 0
        while n % p == 0:
            n //= p
            count += 1
        if count:
            found.append((p, count))
        p += 1
    return found


@called((1,), (7,), (12,), (50,), (90,))
def square_gap(n):
    """Write a function that returns how far a whole number n >= 0 is from the nearest square number."""
    root = 0
    while (root + 1) ** 2 <= n:
        root += 1
    return min(n - root**2, (root + 1) ** 2 - n)


@called((0,), (9,), (38,), (493193,), (99,))
def digital_root(n):
    """Write a function that adds the decimal digits of a whole number n >= 0 again and again until one
    digit is left, and returns a pair: this digit, and how many times digits were added."""
    times = 0
    while n > 9:
        n = sum(int(digit) for digit in str(n))
        times += 1
    return n, times


@called((1, 10), (10, 30), (100, 110), (2, 2), (0, 50))
def mirrored_between(low, high):
    """Write a function that lists the whole numbers from low to high, both included, that read the same
    backwards."""
    return [n for n in range(low, high + 1) if str(n) == str(n)[::-1]]


@called((12, 18), (7, 5), (100, 75), (9, 27), (1, 1))
def lattice_points(dx, dy):
    """Write a function that counts the points with whole coordinates on the segment from (0, 0) to (dx,
    dy), both ends included; dx and dy are positive."""
    a, b = dx, dy
    while b:
        a, b = b, a % b
    return a + 1


@called((0,), (59,), (60,), (3725,), (86399,))
def clock_text(seconds):
    """Write a function that writes a number of seconds below one day as hours, minutes and seconds, such as
    '1:02:05': hours as they are, the others with two digits."""
    return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


@called((30, [1, 5, 10]), (3, [2]), (11, [5, 2]), (0, [3]), (27, [10, 7, 1]))
def fewest_coins(amount, coins):
    """Write a function that returns the smallest number of coins that add up to an amount, where there
    are as many of each kind as needed, or -1 where no coins add up to it."""
    best = [0] + [None] * amount
    for total in range(1, amount + 1):
        known = [best[total - coin] for coin in coins if coin <= total and best[total - coin] is not None]
        best[total] = min(known) + 1 if known else None
    return -1 if best[amount] is None else best[amount]


@called((1,), (4,), (9,), (19,), (40,))
def roman(n):
    """Write a function that writes a whole number from 1 to 99 in Roman numerals."""
    found = ""
    for value, letters in (
        (90, "XC"),
        (50, "L"),
        (40, "XL"),
        (10, "X"),
        (9, "IX"),
        (5, "V"),
        (4, "IV"),
        (1, "I"),
    ):
        while n >= value:
            found += letters
            n -= value
    return found


@called((5, 2), (10, 3), (7, 7), (41, 3), (1, 4))
def last_standing(people, step):
    """Write a function for people numbered 1 to n in a circle: counting begins at 1, each step-th person
    leaves, and the count goes on behind. Return the number of the last who is left."""
    circle = list(range(1, people + 1))
    at = 0
    while len(circle) > 1:
        at = (at + step - 1) % len(circle)
        del circle[at]
    return circle[0]


@called((1,), (2,), (5,), (10,), (20,))
def stair_ways(n):
    """Write a function that counts the ways to climb n >= 1 stairs by taking 1 or 3 stairs at a time."""
    ways = [1, 1, 1]
    while len(ways) <= n:
        ways.append(ways[-1] + ways[-3])
    return ways[n]


@called((8,), (0,), (15,), (37,), (200,))
def octal_mirror(n):
    """Write a function that turns the octal digits of a whole number n >= 0 around, and returns the
    number that stands there then."""
    return int(oct(n)[:1:-1], 8)


@called(([3, 4, 5],), ([5, 4, 3],), ([1, 2, 3],), ([2, 2, 2],), ([6, 2, 5],))
def triangle_kind(sides):
    """Write a function that tells what triangle three side lengths make: 'none' where they make none
    (also if two sides together are just as long as the third), else 'right', 'acute' or 'obtuse'."""
    a, b, c = sorted(sides)
    if a + b <= c:
        return "none"
    square = a * a + b * b - c * c
    return "right" if square == 0 else "acute" if square > 0 else "obtuse"


@called((1900,), (2000,), (2023,), (2024,), (2100,))
def february(year):
    """Write a function that returns how many days February has in a year of the Gregorian calendar."""
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return 29 if leap else 28


@called((3, 7), (10, 4), (1, 2), (22, 7), (9, 3))
def continued_fraction(top, bottom):
    """Write a function that returns the terms of the continued fraction of top / bottom, both positive,
    as a list: the whole part, then those of the inverse of what is left, until nothing is left."""
    terms = []
    while bottom:
        terms.append(top // bottom)
        top, bottom = bottom, top % bottom
    return terms


@called((1,), (3,), (4,), (6,), (2,))
def spiral_end(n):
    """Write a function for the numbers 1 to n * n that are laid in a square spiral from the upper left
    corner, first to the right, then down, and so on inwards. Return the last number's place as a pair
    (row, column), counted from 0."""
    row, column, dr, dc = 0, 0, 0, 1
    seen = {(0, 0)}
    while len(seen) < n * n:
        following = (row + dr, column + dc)
        if not (0 <= following[0] < n and 0 <= following[1] < n) or following in seen:
            dr, dc = dc, -dr
            continue
        row, column = following
        seen.add(following)
    return row, column


@called((100, 3), (1000, 0), (50, 12), (999, 1), (0, 5))
def after_discounts(price, times):
    """Write a function that takes a tenth off a price in cents so many times, each time rounding the new
    price down to whole cents, and returns what it is then."""
    for _ in range(times):
        price = price * 9 // 10
    return price


@called((5,), (12,), (1,), (77,), (100,))
def happy(n):
    """Write a function that replaces a positive whole number by the sum of the squares of its digits
    until it meets a number that it has seen before. Return whether that number is 1."""
    seen = set()
    while n not in seen:
        seen.add(n)
        n = sum(int(digit) ** 2 for digit in str(n))
    return n == 1


@called((6, 4), (9, 9), (3, 10), (1, 1), (7, 2))
def product_table_count(n, limit):
    """Write a function that counts how many entries of the n by n multiplication table, whose entry in
    row i and column j is i * j, are at most a limit."""
    return sum(i * j <= limit for i in range(1, n + 1) for j in range(1, n + 1))


@called((0,), (1,), (10,), (11,), (127,))
def gray_code(n):
    """Write a function that returns the Gray code of a whole number n >= 0: the number whose binary
    digits are those of n, each compared with the one before it, 1 where they differ; before the first
    stands 0."""
    return n ^ (n >> 1)

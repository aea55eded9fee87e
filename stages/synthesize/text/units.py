"""Words and signs that make a quantity of the number beside them.

- `SCALES`: powers of ten
- `CURRENCIES`: currencies, by sign
- `UNITS`: units, by symbol
- `OTHER_DIGITS`: characters that are numbers of their own
"""

OTHER_DIGITS = "¹²³¼-¾⁰⁴-⁹₀-₉⅐-↉①-⒛⓪-⓿❶-➓㉈-㉟㊱-㊿"
"""Superscripts, fractions, Roman and circled numbers, as ranges of a regular expression: `\\d` matches none of them."""
SCALES = {
    "hundred": 2, "thousand": 3, "million": 6, "mn": 6, "mln": 6, "billion": 9, "bn": 9, "trillion": 12, "tn": 12,
}  # fmt: skip
CURRENCIES = {
    "$": "$", "dollar": "$", "dollars": "$", "usd": "$", "€": "€", "euro": "€", "euros": "€", "eur": "€", "£": "£",
    "pound sterling": "£", "gbp": "£", "¥": "¥", "yen": "¥", "yuan": "¥", "₹": "₹", "rupees": "₹", "cents": "¢",
    "cent": "¢", "¢": "¢",
}  # fmt: skip
_UNITS = {
    "%": "% percent", "‰": "‰", "°C": "°c celsius", "°F": "°f fahrenheit", "°": "° degree degrees",
    "km": "km kilometer kilometers kilometre kilometres", "m": "m meter meters metre metres",
    "cm": "cm centimeter centimeters centimetre centimetres", "mm": "mm millimeter millimeters millimetre millimetres",
    "mi": "mi mile miles mph", "ft": "ft foot feet", "inch": "inch inches", "yd": "yard yards",
    "kg": "kg kilogram kilograms kilo kilos", "g": "g gram grams", "mg": "mg milligram milligrams",
    "lb": "lb lbs pound pounds", "oz": "oz ounce ounces", "t": "t ton tons tonne tonnes",
    "l": "l liter liters litre litres", "ml": "ml milliliter milliliters", "gal": "gallon gallons",
    "s": "s sec secs second seconds", "ms": "ms millisecond milliseconds", "min": "min mins minute minutes",
    "h": "h hr hrs hour hours", "day": "day days", "week": "week weeks", "month": "month months",
    "year": "year years", "Hz": "hz hertz", "kHz": "khz", "MHz": "mhz", "GHz": "ghz", "W": "w watt watts",
    "kW": "kw kilowatt kilowatts", "MW": "mw megawatt megawatts", "kWh": "kwh", "V": "v volt volts",
    "A": "a amp amps ampere amperes", "kB": "kb kilobyte kilobytes", "MB": "mb megabyte megabytes",
    "GB": "gb gigabyte gigabytes", "TB": "tb terabyte terabytes", "byte": "byte bytes", "bit": "bit bits",
}  # fmt: skip
UNITS = {word: unit for unit, written in _UNITS.items() for word in written.split()}

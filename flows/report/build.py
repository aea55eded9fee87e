def write_report(u: object, r: object) -> str:
    return ""

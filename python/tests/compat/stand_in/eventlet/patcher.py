def is_monkey_patched(module) -> bool:
    return False

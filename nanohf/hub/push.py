def publish(config, stage, folder):
    pass

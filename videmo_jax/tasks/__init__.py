"""What Emo-CFG asks: the tasks, their curriculum stage and the form of their answers."""
